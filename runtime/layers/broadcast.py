"""Broadcasting a smaller blob over a larger one, for Scale and Bias."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep


@dataclass(frozen=True)
class BroadcastAxes:
    """`shape` broadcasts the small blob over the large one; its axes are the layout's channels.

    `start` is the first of these axes.
    """

    start: int
    shape: tuple[int, ...]
    layout: Layout


def factor_shape(large: Blob, axis: int, num_axes: int, label: str) -> tuple[int, ...]:
    """The shape of a weight for `num_axes` axes from `axis` on; -1 means to the end.

    Raises:
        ShapeError, ProtoError: the axes are out of range.
    """
    start = large.canonical_axis(axis, label)
    if num_axes < -1 or (num_axes >= 0 and start + num_axes > large.num_axes):
        raise ProtoError(
            f"{label}: num_axes is {num_axes}; expected -1, or at most "
            f"{large.num_axes - start} axes from axis {start} of shape {large.shape}"
        )
    return large.shape[start:] if num_axes == -1 else large.shape[start : start + num_axes]


def broadcast_axes(large: Blob, small: Blob, axis: int, label: str) -> BroadcastAxes:
    """Match the axes of the small blob with the large one from `axis` on.

    Raises:
        ShapeError: the dimensions do not agree.
    """
    start = 0 if small.num_axes == 0 else large.canonical_axis(axis, label)
    end = start + small.num_axes
    if large.shape[start:end] != small.shape:
        raise ShapeError(
            f"{label}: expected a factor with the axes from {start} on of {large.shape}, "
            f"got shape {small.shape}"
        )
    shape = (1,) * start + small.shape + (1,) * (large.num_axes - end)
    sizes = large.shape[:start], small.shape, large.shape[end:]
    return BroadcastAxes(start, shape, Layout(*(math.prod(part) for part in sizes)))


def onnx_factor(step: OnnxStep, shape: tuple[int, ...]) -> str:
    """The second bottom or the weight as an ONNX value, in a shape that broadcasts."""
    return step.reshape(step.inputs[1], shape) if len(step.bottom) > 1 else step.weight(0, shape)
