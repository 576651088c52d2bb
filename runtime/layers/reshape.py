"""Reshape: the same data in another shape. Caffe: reshape_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Reshape")
class ReshapeLayer(Layer):
    """In `shape`, 0 copies the dimension of the bottom and -1 is inferred. Memory is shared."""

    only_ops = True
    in_place = False

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the shape.

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
        dims = [int(d) for d in param.shape.dim]
        if dims.count(-1) > 1 or any(d < -1 for d in dims):
            raise ProtoError(f"{self.label}: shape {dims}; expected at most one -1, none below")
        for i, d in enumerate(dims):
            if d == 0:
                if start + i >= axes:
                    raise ProtoError(
                        f"{self.label}: shape {dims} copies dimension {start + i}; "
                        f"expected a dimension of {old}"
                    )
                dims[i] = old[start + i]
        shape = [*old[:start], *dims, *old[end:]]
        if -1 in shape:
            product = 1
            for d in shape:
                product *= d if d != -1 else 1
            if product == 0 or bottom[0].count() % product:
                raise ShapeError(
                    f"{self.label}: {bottom[0].count()} elements of {old} do not fill "
                    f"{shape}; expected a multiple of {product}"
                )
            shape[shape.index(-1)] = bottom[0].count() // product
        top[0].reshape(shape)
        if top[0].count() != bottom[0].count():
            raise ShapeError(
                f"{self.label}: shape {tuple(shape)} has {top[0].count()} elements; expected the "
                f"{bottom[0].count()} of {old}"
            )
        top[0].share_data(bottom[0])
        top[0].share_diff(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Share again: a reshaped bottom may have new memory."""
        top[0].share_data(bottom[0])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Share the gradient."""
        bottom[0].share_diff(top[0])

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.reshape(step.inputs[0], step.top[0].shape)]
