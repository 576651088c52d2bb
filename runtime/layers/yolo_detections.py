"""What the detection outputs of YOLO v2 and v3 have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, at_least

Floats = npt.NDArray[np.float64]
COORDINATES = 4
COLUMNS = 7
"""Image, label, confidence, and the corners x1, y1, x2, y2 in parts of the image."""


@dataclass(frozen=True)
class Candidates:
    """Boxes before suppression.

    Shapes: boxes (K,4) of centre x and y, width and height in parts of the image; labels (K,) from
    1 on; confidences (K,).
    """

    boxes: Floats
    labels: npt.NDArray[np.int64]
    confidences: Floats


def logistic(x: Floats) -> Floats:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def decode_boxes(cells: Floats, anchors: Floats, units: tuple[float, float]) -> Floats:
    """Return the boxes of a map.

    Args:
        cells: (A,4,H,W), the predicted coordinates.
        anchors: (A,2), widths and heights.
        units: width and height of the image in the units of the anchors.

    Shapes: result (A,H,W,4).
    """
    _, _, height, width = cells.shape
    x = (np.arange(width) + logistic(cells[:, 0])) / width
    y = (np.arange(height)[:, None] + logistic(cells[:, 1])) / height
    with np.errstate(over="ignore"):
        w = np.exp(cells[:, 2]) * anchors[:, 0, None, None] / units[0]
        h = np.exp(cells[:, 3]) * anchors[:, 1, None, None] / units[1]
    return np.stack([x, y, w, h], axis=-1)


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union of a box with others. Shapes: (4,), (K,4); (K,)."""
    low = np.maximum(box[:2] - box[2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = np.minimum(box[:2] + box[2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    union = box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def suppress(candidates: Candidates, threshold: float) -> Candidates:
    """Keep the most confident boxes; a box that overlaps a kept one by the threshold is removed.

    Boxes of different classes remove each other, as in the layers' sources.
    """
    rest = np.argsort(-candidates.confidences, kind="stable")
    kept: list[int] = []
    while len(rest):
        kept.append(int(rest[0]))
        shared = overlaps(candidates.boxes[rest[0]], candidates.boxes[rest[1:]])
        rest = rest[1:][shared < threshold]
    return Candidates(candidates.boxes[kept], candidates.labels[kept], candidates.confidences[kept])


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return the boxes of several maps as one list."""
    return Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.confidences for part in parts]),
    )


class YoloDetectionLayer(Layer):
    """Boxes of every image after suppression; an image without boxes has a row of -1.

    Each image is suppressed alone and has its number in column 0. The sources mix the images of a
    batch and give all boxes the number 0; for a batch of one image the results are equal.

    Shapes: bottoms (N, anchors * (5 + classes), H, W); top (1,1,boxes,7).
    """

    num_bottom = at_least(1)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Boxes have no gradient."""
        return False

    def settings(self) -> Any:
        """The parameter message of the layer."""
        raise NotImplementedError(f"{type(self).__name__} must define settings")

    def candidates(self, bottom: Blobs, image: int) -> Candidates:
        """Return the boxes of an image before suppression."""
        raise NotImplementedError(f"{type(self).__name__} must define candidates")

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the anchors.

        Raises:
            ProtoError: there are too few numbers.
        """
        param = self.settings()
        self.classes, self.anchors_per_cell = int(param.num_classes), int(param.num_box)
        values = np.array(param.biases, np.float64)
        if len(values) % 2 or not len(values) or self.classes < 1 or self.anchors_per_cell < 1:
            raise ProtoError(
                f"{self.label}: expected at least one class, one box and pairs of numbers in "
                f"biases, got num_classes {self.classes}, num_box {self.anchors_per_cell} and "
                f"{len(values)} biases; correct the parameter"
            )
        self.anchors = values.reshape(-1, 2)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top for one box per image, before the number is known.

        Raises:
            ShapeError: a bottom does not have the channels of the boxes.
        """
        channels = self.anchors_per_cell * (COORDINATES + 1 + self.classes)
        for blob in bottom:
            if (
                blob.num_axes != 4
                or blob.shape[1] != channels
                or blob.shape[0] != bottom[0].shape[0]
            ):
                raise ShapeError(
                    f"{self.label}: expected bottoms ({bottom[0].shape[0]},{channels},H,W) for "
                    f"{self.anchors_per_cell} boxes and {self.classes} classes, got {blob.shape}; "
                    "correct num_box and num_classes, or the bottoms"
                )
        top[0].reshape((1, 1, bottom[0].shape[0], COLUMNS))

    def cells(self, blob: Any, image: int) -> Floats:
        """View a map of an image as (anchors, 5 + classes, H, W)."""
        values = blob.data.host()[image].astype(np.float64)
        return np.asarray(values.reshape(self.anchors_per_cell, -1, *blob.shape[2:]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Find the boxes."""
        threshold = float(self.settings().nms_threshold)
        rows: list[Floats] = []
        for image in range(bottom[0].shape[0]):
            kept = suppress(self.candidates(bottom, image), threshold)
            rows.append(_rows(kept, image))
        found = np.concatenate(rows) if rows else np.zeros((0, COLUMNS))
        top[0].reshape((1, 1, len(found), COLUMNS))
        top[0].data.mutable_host()[...] = found.reshape(top[0].shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Refuse.

        Raises:
            ProtoError: a gradient is requested.
        """
        if any(propagate_down):
            raise ProtoError(f"{self.label}: boxes have no gradient; set propagate_down: false")


def _rows(kept: Candidates, image: int) -> Floats:
    if not len(kept.labels):
        row = np.full((1, COLUMNS), -1.0)
        row[0, 0] = image
        return row
    centre, half = kept.boxes[:, :2], kept.boxes[:, 2:] / 2
    images = np.full(len(kept.labels), image)
    return np.column_stack([images, kept.labels, kept.confidences, centre - half, centre + half])
