"""A net of boxes with its weights: images in, the box of every window out. Paper: A.1."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np

from data_prep.boxes import Corners, to_corners
from prototxt_gen import text
from prototxt_gen.errors import ProtoError
from prototxt_gen.localization import NUMBERS, REGRESSIONS
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.evaluate.score_net import Floats, ScoreNet


class BoxNet:
    """Boxes of crops, or of all windows of whole images.

    `boxes_of_classes` is the number of boxes of a window: the classes, or 1 for all of them.

    Raises:
        ProtoError: the net has no layer of boxes.
        SnapshotError, ShapeError: the weights do not fit it.
    """

    def __init__(
        self, model: Path, weights: str | os.PathLike[str], backend: Backend, dense: bool
    ) -> None:
        param = text.read_net(model)
        top = box_blob(param)
        self.net = ScoreNet(param, weights, backend, dense, top=top)
        self.crop = self.net.crop
        self.stride = stride_of(param)
        self.boxes_of_classes = self.net.classes // NUMBERS

    def boxes(self, images: Floats) -> Corners:
        """The boxes of every window, row by row, in pixels of the images.

        Shapes: images (N,3,H,W); result (N, 1 or classes, windows, 4).
        """
        maps = self.net.score_maps(images).astype(np.float64)
        count, _, rows, columns = maps.shape
        split = maps.reshape(count, self.boxes_of_classes, NUMBERS, rows * columns)
        height, width = self.crop
        sizes = np.array([width, height, width, height], np.float64)
        corners = to_corners(split.transpose(0, 1, 3, 2) * sizes)
        return corners + window_corners(rows, columns, self.stride)

    def close(self) -> None:
        """Give its resources back."""
        self.net.close()

    def __enter__(self) -> BoxNet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def box_blob(model: Message) -> str:
    """The blob that holds the boxes of a localisation net, of any of its forms.

    Raises:
        ProtoError: there is none.
    """
    for layer in model.layer:
        name = str(layer.name).removesuffix("-conv")
        if name.endswith(tuple(f"-{kind}" for kind in REGRESSIONS)):
            return str(layer.top[0])
    raise ProtoError(
        f"net '{model.name}': which layer predicts boxes? expected one whose name ends in "
        f"{' or '.join(f'-{kind}' for kind in REGRESSIONS)}, got none; give a net that "
        "`verydeep localise train` wrote"
    )


def stride_of(model: Message) -> int:
    """The pixels from one window to the next: what the poolings divide by."""
    stride = 1
    for layer in model.layer:
        if layer.type == "Pooling":
            stride *= int(layer.pooling_param.stride)
    return stride


def window_corners(rows: int, columns: int, stride: int) -> Corners:
    """Where windows begin, row by row, twice beside itself. Shape (windows,4)."""
    y, x = np.mgrid[:rows, :columns].reshape(2, -1) * stride
    return np.stack([x, y, x, y], axis=-1).astype(np.float64)
