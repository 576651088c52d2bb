"""Where a box goes when its image is rescaled, cropped and mirrored, and the way back.

Units: edges in pixels; a box over a whole image of H x W is (0, 0, W, H). OpenCV's resizing keeps
edges on edges, so that they move by plain proportion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_prep import philox
from data_prep.resize import short_side_size
from data_prep.transform import TransformSpec

Corners = npt.NDArray[np.float64]
"""(..., 4): xmin, ymin, xmax, ymax."""


@dataclass(frozen=True)
class Placement:
    """How an image became a crop: rescaled, cut out at (left, top), perhaps mirrored."""

    scale_x: float
    scale_y: float
    left: float
    top: float
    width: float
    mirror: bool = False

    def to_crop(self, boxes: Corners) -> Corners:
        """Boxes of the stored image as boxes of the crop; they may reach beyond it."""
        moved = boxes * self._scales() - self._shifts()
        return self._mirrored(moved)

    def to_image(self, boxes: Corners) -> Corners:
        """Boxes of the crop as boxes of the stored image."""
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


def placement(spec: TransformSpec, words: philox.Words, height: int, width: int) -> Placement:
    """What `spec` does to a stored image of this size with these words.

    Shapes: words (8,).
    """
    side = spec.scale_of(words)
    new_height, new_width = short_side_size(height, width, side) if side else (height, width)
    top, left, cut = 0, 0, new_width
    if spec.crop_size:
        top, left = spec.corner(new_height, new_width, words)
        cut = spec.crop_size
    return Placement(
        new_width / width, new_height / height, left, top, cut, mirror=spec.mirrors(words)
    )


def to_centres(corners: Corners) -> Corners:
    """Corners as centre x, centre y, width, height. Paper: A.1."""
    low, high = corners[..., :2], corners[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def to_corners(centres: Corners) -> Corners:
    """Centre x, centre y, width, height as corners; a size below 0 counts as 0."""
    middle, half = centres[..., :2], np.maximum(centres[..., 2:], 0) / 2
    return np.concatenate([middle - half, middle + half], axis=-1)
