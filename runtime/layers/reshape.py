"""Reshape: the same data in another shape. Caffe: reshape_layer.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.view import ViewLayer


@register("Reshape")
class ReshapeLayer(ViewLayer):
    """In `shape`, 0 copies the dimension of the bottom and -1 is inferred. Memory is shared."""

    only_ops = True

    def top_shape(self, bottom: Blobs) -> list[int]:
        """The shape by `shape`, `axis` and `num_axes`.

        Raises:
            ProtoError: the dimensions are invalid.
            ShapeError: the number of elements does not agree.
        """
        param, old = self.param.reshape_param, bottom[0].shape
        axes = bottom[0].num_axes
        start = int(param.axis) if param.axis >= 0 else axes + int(param.axis) + 1
        end = axes if param.num_axes == -1 else start + int(param.num_axes)
        if not 0 <= start <= end <= axes:
            raise ProtoError(
                f"{self.label}: axis {param.axis} and num_axes {param.num_axes} are out of range; "
                f"expected axes of shape {old}"
            )
        shape = [*old[:start], *self._dims(old, start), *old[end:]]
        if -1 in shape:
            product = math.prod(d for d in shape if d != -1)
            if product == 0 or bottom[0].count() % product:
                raise ShapeError(
                    f"{self.label}: {bottom[0].count()} elements of {old} do not fill "
                    f"{shape}; expected a multiple of {product}"
                )
            shape[shape.index(-1)] = bottom[0].count() // product
        count = math.prod(shape)
        if count != bottom[0].count():
            raise ShapeError(
                f"{self.label}: shape {tuple(shape)} has {count} elements; expected the "
                f"{bottom[0].count()} of {old}"
            )
        return shape

    def _dims(self, old: Sequence[int], start: int) -> list[int]:
        """The dimensions of `shape`, with those of the bottom from axis `start` in place of 0."""
        dims = [int(d) for d in self.param.reshape_param.shape.dim]
        if dims.count(-1) > 1 or any(d < -1 for d in dims):
            raise ProtoError(f"{self.label}: shape {dims}; expected at most one -1, none below")
        for i, d in enumerate(dims):
            if d == 0:
                if start + i >= len(old):
                    raise ProtoError(
                        f"{self.label}: shape {dims} copies dimension {start + i}; "
                        f"expected a dimension of {old}"
                    )
                dims[i] = old[start + i]
        return dims

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.reshape(step.inputs[0], step.top[0].shape)]
