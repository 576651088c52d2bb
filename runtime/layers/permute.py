"""Permute: the axes of a blob in another order. Caffe: SSD's permute_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.layers.strided import StridedCopy, Strides


@register("Permute")
class PermuteLayer(Layer):
    """A transposition: axis i of the top is axis `order[i]` of the bottom.

    Shapes: axes that `order` leaves out follow in the bottom's order.
    """

    in_place = False
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Complete the order and shape the top.

        Raises:
            ProtoError: the order repeats an axis, or has one that does not exist.
        """
        axes = bottom[0].num_axes
        order = [int(axis) for axis in self.param.permute_param.order]
        if len(set(order)) != len(order) or any(axis >= axes for axis in order):
            raise ProtoError(
                f"{self.label}: order {order} is not of the bottom's axes; expected different axes "
                f"below {axes}, as the bottom has shape {bottom[0].shape}; correct permute_param"
            )
        self.order = (*order, *(axis for axis in range(axes) if axis not in order))
        top[0].reshape([bottom[0].shape[axis] for axis in self.order])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Transpose."""
        source = Strides.of(bottom[0].shape).permuted(self.order)
        copy = StridedCopy(top[0].shape, source, Strides.of(top[0].shape))
        copy.run(self.backend, bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Transpose back."""
        if propagate_down[0]:
            back = [self.order.index(axis) for axis in range(len(self.order))]
            source = Strides.of(top[0].shape).permuted(back)
            copy = StridedCopy(bottom[0].shape, source, Strides.of(bottom[0].shape))
            copy.run(self.backend, top[0].diff, bottom[0].diff)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        return [step.op("Transpose", step.inputs[0], perm=list(self.order))]
