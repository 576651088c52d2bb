"""PriorBox: boxes around each position of a map. Caffe: SSD's prior_box_layer.cpp."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError
from prototxt_gen.geometry_limits import check_count, image_shape
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

_SAME_RATIO = 1e-6


@register("PriorBox")
class PriorBoxLayer(Layer):
    """For each position: a square of min_size, one of sqrt(min_size * max_size), the aspect ratios.

    Shapes: bottoms map and image (N,C,H,W); top (1,2,H*W*boxes*4): x1, y1, x2, y2 of each box and
    their variances.

    Units: the image's width and height are 1.
    """

    num_bottom = exactly(2)
    in_place = False
    host_only = False
    value_bottoms = 0

    def allow_force_backward(self, bottom_index: int) -> bool:
        """False: only the shapes of the bottoms are used."""
        return False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the sizes of the boxes.

        Raises:
            ProtoError: a size, ratio or variance is out of range.
        """
        param = self.param.prior_box_param
        small, large = list(param.min_size), list(param.max_size)
        if not small or min(small) < 1 or (large and len(large) != len(small)):
            raise ProtoError(
                f"{self.label}: min_size {small} and max_size {large}; expected at least one "
                "min_size of at least 1, and no max_size or one for each; correct prior_box_param"
            )
        if any(most <= least for least, most in zip(small, large)):
            raise ProtoError(
                f"{self.label}: max_size {large} is not above min_size {small}; correct it"
            )
        self.variance = [float(value) for value in param.variance] or [0.1]
        if len(self.variance) not in (1, 4) or min(self.variance) <= 0:
            raise ProtoError(
                f"{self.label}: variance is {self.variance}; expected one or 4 numbers above 0; "
                "correct prior_box_param"
            )
        self.sizes = _sizes(small, large, _ratios(param, self.label))
        self._check_doubles("img_size", "img_h", "img_w")
        self._check_doubles("step", "step_h", "step_w")
        self._shapes: tuple[tuple[int, ...], ...] | None = None

    def _check_doubles(self, name: str, height: str, width: str) -> None:
        """Check that a pair is given by one form, and above 0."""
        param = self.param.prior_box_param
        pair = [param.HasField(height), param.HasField(width)]
        if (param.HasField(name) and any(pair)) or pair[0] != pair[1]:
            raise ProtoError(
                f"{self.label}: {name}, {height} and {width} do not fit together; expected {name}, "
                f"or {height} and {width}; remove the others"
            )
        for field in (name, height, width):
            if param.HasField(field) and not getattr(param, field) > 0:
                raise ProtoError(f"{self.label}: {field} is 0 or below; expected above 0")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the boxes for new shapes."""
        shapes = tuple(image_shape(blob.shape, self.label) for blob in bottom)
        if shapes != self._shapes:
            count = shapes[0][2] * shapes[0][3] * len(self.sizes) * 4
            check_count("the result", (1, 2, count), self.label)
            self._version: int | None = None
            """The version of the top's data after the boxes were written."""
            self.boxes = self._boxes(shapes[0][2:], self._image(shapes[1][2:]))
            self._shapes = shapes
        top[0].reshape(self.boxes.shape)

    def _image(self, plane: tuple[int, int]) -> tuple[int, int]:
        param = self.param.prior_box_param
        if param.HasField("img_size"):
            return int(param.img_size), int(param.img_size)
        return (int(param.img_h), int(param.img_w)) if param.HasField("img_h") else plane

    def _boxes(self, plane: tuple[int, int], image: tuple[int, int]) -> HostArray:
        """The top's values."""
        param = self.param.prior_box_param
        steps: Any = (image[0] / plane[0], image[1] / plane[1])
        if param.HasField("step"):
            steps = (param.step, param.step)
        elif param.HasField("step_h"):
            steps = (param.step_h, param.step_w)
        centres = [(np.arange(length) + param.offset) * step for length, step in zip(plane, steps)]
        half = np.array(self.sizes) / 2  # (boxes, 2): width, height
        corners = np.empty((*plane, len(self.sizes), 4))
        y, x = centres[0][:, None, None], centres[1][None, :, None]
        for axis, centre, length in ((0, x, image[1]), (1, y, image[0])):
            corners[..., axis] = (centre - half[:, axis]) / length
            corners[..., axis + 2] = (centre + half[:, axis]) / length
        if param.clip:
            corners = corners.clip(0, 1)
        variance = np.broadcast_to(self.variance, corners.shape)
        return np.stack([corners.ravel(), variance.ravel()])[None]

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the boxes."""
        top_data = top[0].data
        if self._version is None or self._version != top_data.version:
            top_data.mutable_host()[...] = self.boxes
            self._version = top_data.version

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.constant(self.boxes, "boxes")]


def _ratios(param: Any, label: str) -> list[float]:
    """The aspect ratios other than 1, with their inverses if `flip` is set."""
    ratios = [1.0]
    for given in param.aspect_ratio:
        if not given > 0:
            raise ProtoError(f"{label}: aspect_ratio is {given:g}; expected above 0; correct it")
        if all(abs(given - ratio) >= _SAME_RATIO for ratio in ratios):
            ratios += [given, 1 / given] if param.flip else [given]
    return ratios[1:]


def _sizes(
    small: list[float], large: list[float], ratios: list[float]
) -> list[tuple[float, float]]:
    """Width and height of each box, in the order of the top."""
    sizes = []
    for index, given in enumerate(small):
        least = float(int(given))
        sizes.append((least, least))
        if large:
            middle = math.sqrt(least * int(large[index]))
            sizes.append((middle, middle))
        sizes += [(least * math.sqrt(ratio), least / math.sqrt(ratio)) for ratio in ratios]
    return sizes
