"""Bounding boxes: the XML files of ILSVRC and PASCAL VOC, and positions in transformed images.

Units: edges in pixels; a box over a whole image of H x W is (0, 0, W, H). OpenCV's resizing maps
edges to edges, so boxes are scaled in proportion.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from data_prep.annotation_xml import parse_xml
from prototxt_gen.errors import DataError
from prototxt_gen.reading import read_bytes

Corners = npt.NDArray[np.float64]
"""(..., 4): xmin, ymin, xmax, ymax."""

_MOST_BYTES = 1 << 22


@dataclass(frozen=True)
class Box:
    """The box of an object; in ILSVRC `name` is its wnid.

    Units: pixels of the stored image (orientation tags are ignored), as written in the file.
    """

    name: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float


def read_boxes(path: str | Path) -> list[Box]:
    """Read the boxes of an image in the order of the file; an image may have none.

    Raises:
        DataError: the file is missing, is not an annotation, or has an impossible box.
    """
    try:
        root = parse_xml(read_bytes(path, _MOST_BYTES, regular=True))
    except OSError as cause:
        raise DataError(
            f"{path}: the boxes cannot be read: {cause.strerror}; "
            "unpack the bounding-box archives next to the images"
        ) from cause
    except ValueError as cause:
        raise DataError(
            f"{path}: not XML ({cause}); expected an annotation of ILSVRC or VOC; unpack it again"
        ) from cause
    return [_read_box(item, path) for item in root.iter("object")]


def _read_box(item: Element, path: str | Path) -> Box:
    name = item.findtext("name")
    corners = [item.findtext(f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(corner or "missing") for corner in corners)
    except ValueError:
        raise DataError(
            f"{path}: an object with the corners {corners}; expected a bndbox of four numbers: "
            "xmin, ymin, xmax, ymax"
        ) from None
    if not name or not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise DataError(
            f"{path}: an object named {name!r} with corners {corners}; "
            "expected a name and finite numbers"
        )
    if xmax < xmin or ymax < ymin:
        raise DataError(
            f"{path}: a box from ({xmin:g}, {ymin:g}) to ({xmax:g}, {ymax:g}); "
            "expected xmin <= xmax and ymin <= ymax"
        )
    return Box(name.strip(), xmin, ymin, xmax, ymax)


@dataclass(frozen=True)
class Placement:
    """The position of a stored image in its crop: rescaled, cut at (left, top), maybe mirrored.

    `width` and `height` are those of the crop.
    """

    scale_x: float
    scale_y: float
    left: float
    top: float
    width: int
    mirror: bool = False
    height: int = 0

    @classmethod
    def whole(cls, height: int, width: int) -> Placement:
        """The placement of an image that has not been changed."""
        return cls(1.0, 1.0, 0, 0, width, height=height)

    def rescaled(self, height: int, width: int) -> Placement:
        """The placement after the whole image was resized."""
        scale_x, scale_y = width / self.width, height / self.height
        return dataclasses.replace(
            self, scale_x=scale_x, scale_y=scale_y, width=width, height=height
        )

    def cropped(self, top: int, left: int, length: int) -> Placement:
        """The placement after a square was cut out of the image."""
        return dataclasses.replace(self, left=left, top=top, width=length, height=length)

    def to_crop(self, boxes: Corners) -> Corners:
        """Convert boxes of the stored image to boxes of the crop, which may exceed it.

        Shapes: boxes and result (..., 4).
        """
        return self._mirrored(boxes * self._scales() - self._shifts())

    def to_image(self, boxes: Corners) -> Corners:
        """Convert boxes of the crop to boxes of the stored image.

        Shapes: boxes and result (..., 4).
        """
        return (self._mirrored(boxes) + self._shifts()) / self._scales()

    def _scales(self) -> Corners:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def _shifts(self) -> Corners:
        return np.array([self.left, self.top, self.left, self.top], np.float64)

    def _mirrored(self, boxes: Corners) -> Corners:
        if not self.mirror:
            return boxes
        flipped = boxes.copy()
        flipped[..., 0], flipped[..., 2] = self.width - boxes[..., 2], self.width - boxes[..., 0]
        return flipped


def corners_of(boxes: Sequence[Box]) -> Corners:
    """The corners of boxes. Shapes: result (N, 4)."""
    rows = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def to_centres(corners: Corners) -> Corners:
    """Convert corners to centre x, centre y, width, height. Paper: A.1.

    Shapes: corners and result (..., 4).
    """
    low, high = corners[..., :2], corners[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def to_corners(centres: Corners) -> Corners:
    """Convert centre x, centre y, width, height to corners; a size below 0 counts as 0.

    Shapes: centres and result (..., 4).
    """
    middle, half = centres[..., :2], np.maximum(centres[..., 2:], 0) / 2
    return np.concatenate([middle - half, middle + half], axis=-1)
