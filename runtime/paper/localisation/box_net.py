"""A box-predicting net with its weights: the box of every window of an image. Paper: A.1."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_prep.boxes import Corners, to_corners
from prototxt_gen import text
from prototxt_gen.errors import ProtoError
from prototxt_gen.localisation import NUMBERS, REGRESSIONS
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.evaluate.score_net import Floats, ScoreNet


class BoxNet(ScoreNet):
    """Predicts boxes of crops, or of all windows of whole images.

    `boxes_per_window` is the number of classes, or 1 if all classes share a box.

    Raises:
        ProtoError: the net has no layer that predicts boxes.
        SnapshotError, ShapeError: the weights do not fit the net.
    """

    def __init__(
        self, model: Path, weights: str | os.PathLike[str], backend: Backend, dense: bool
    ) -> None:
        param = text.read_net(model)
        super().__init__(param, weights, backend, dense, top=box_blob(param))
        self.stride = stride_of(param)
        self.boxes_per_window = self.classes // NUMBERS

    def boxes(self, images: Floats) -> Corners:
        """Predict the boxes of every window, row by row.

        Shapes: images (N,3,H,W); result (N, 1 or classes, windows, 4).
        Units: pixels of the images.
        """
        maps = self.score_maps(images).astype(np.float64)
        count, _, rows, columns = maps.shape
        split = maps.reshape(count, self.boxes_per_window, NUMBERS, rows * columns)
        height, width = self.crop
        sizes = np.array([width, height, width, height], np.float64)
        corners = to_corners(split.transpose(0, 1, 3, 2) * sizes)
        return corners + window_corners(rows, columns, self.stride)

    def box_index(self, label: int) -> int:
        """Return which of a window's boxes belongs to a class."""
        return label if self.boxes_per_window > 1 else 0


def box_blob(model: Message) -> str:
    """Return the blob of the predicted boxes in a train_val, deploy or dense net.

    Raises:
        ProtoError: no layer predicts boxes.
    """
    for layer in model.layer:
        name = str(layer.name).removesuffix("-conv")
        if name.endswith(tuple(f"-{kind}" for kind in REGRESSIONS)):
            return str(layer.top[0])
    raise ProtoError(
        f"net '{model.name}': no layer predicts boxes; expected one whose name ends in "
        f"{' or '.join(f'-{kind}' for kind in REGRESSIONS)}, got none; give a net that "
        "`verydeep localise train` wrote"
    )


def stride_of(model: Message) -> int:
    """Return the distance of neighbouring windows: the product of the poolings' strides.

    Units: pixels.
    """
    stride = 1
    for layer in model.layer:
        if layer.type == "Pooling":
            stride *= int(layer.pooling_param.stride)
    return stride


def window_corners(rows: int, columns: int, stride: int) -> Corners:
    """Return the upper left corners of windows, row by row, as (x, y, x, y).

    Shapes: result (windows,4). Units: pixels.
    """
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * stride
    return np.stack([x, y, x, y], axis=-1).astype(np.float64)
