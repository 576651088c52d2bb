"""Axpy: scale the channels of a map and add another. Caffe: SENet's axpy_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from runtime.backend.base import LayerKernels
from runtime.core.description import OnnxStep, Places, PlainLayer
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

_PRODUCTS = 3
"""The operation of reduce_rows."""


@register("Axpy")
class AxpyLayer(Layer):
    """top = a * x + y, for bottoms a, x and y.

    Shapes: a (N,C) or (N,C,1,...); x, y and top (N,C,...).
    """

    num_bottom = exactly(3)
    in_place = False
    only_ops = True
    places = Places.SAME

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ShapeError: a does not have one element per plane of x, or x and y differ.
        """
        a, x, y = bottom
        fits = x.num_axes >= 2 and a.num_axes >= 2 and a.shape[:2] == x.shape[:2]
        if not fits or a.count(2) != 1 or x.shape != y.shape:
            raise ShapeError(
                f"{self.label}: the bottoms do not fit; expected (N,C) or (N,C,1,1), and (N,C,...) "
                f"twice, got {a.shape}, {x.shape} and {y.shape}; correct the bottoms or their order"
            )
        top[0].reshape_like(x)

    def _factor(self, bottom: Blobs) -> Any:
        shape = bottom[1].shape
        return bottom[0].data.host().reshape(shape[:2] + (1,) * (len(shape) - 2))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Multiply and add."""
        kernels = self.backend.kernels
        if kernels is not None:
            a, x, y = (blob.data.dev() for blob in bottom)
            result, count = top[0].data.mutable_dev(), top[0].count()
            args = (a, x, y, result, count, bottom[1].count(2))
            kernels.elementwise("rows", "scale_rows", count, args)
            return
        product = self._factor(bottom) * bottom[1].data.host()
        top[0].data.mutable_host()[...] = product + bottom[2].data.host()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of the three bottoms."""
        if self.backend.kernels is not None:
            self._backward_on_device(self.backend.kernels, top, propagate_down, bottom)
            return
        dy = top[0].diff.host()
        if propagate_down[0]:
            share = (dy * bottom[1].data.host()).sum(axis=tuple(range(2, dy.ndim)))
            bottom[0].diff.mutable_host()[...] = share.reshape(bottom[0].shape)
        if propagate_down[1]:
            bottom[1].diff.mutable_host()[...] = self._factor(bottom) * dy
        if propagate_down[2]:
            bottom[2].diff.mutable_host()[...] = dy

    def _backward_on_device(
        self, kernels: LayerKernels, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs
    ) -> None:
        dy, count, cols = top[0].diff.dev(), top[0].count(), bottom[1].count(2)
        if propagate_down[0]:
            rows = (dy, bottom[1].data.dev(), bottom[0].diff.mutable_dev(), cols, _PRODUCTS, 1.0)
            kernels.run("rows", "reduce_rows", bottom[0].count(), rows)
        if propagate_down[1]:
            args = (bottom[0].data.dev(), dy, None, bottom[1].diff.mutable_dev(), count, cols)
            kernels.elementwise("rows", "scale_rows", count, args)
        if propagate_down[2]:
            self.backend.memory.copy(dy, bottom[2].diff.mutable_dev())

    def bvlc_form(self, param: Any) -> list[PlainLayer]:
        """A Flatten of a, a Scale of x by it, and an Eltwise sum with y."""
        a, x, y = param.bottom
        factor, product = f"{param.name}/factor", f"{param.name}/product"
        rules = {"include": param.include, "exclude": param.exclude}
        flatten = proto.LayerParameter(
            name=factor, type="Flatten", bottom=[a], top=[factor], **rules
        )
        scale = proto.LayerParameter(
            name=product, type="Scale", bottom=[x, factor], top=[product], **rules
        )
        scale.scale_param.axis = 0
        param.type = "Eltwise"
        param.ClearField("propagate_down")
        param.bottom[:] = [product, y]
        return [PlainLayer(flatten), PlainLayer(scale), PlainLayer(param)]

    def to_onnx(self, step: OnnxStep) -> list[str]:
        shape = step.bottom[1].shape
        factor = step.reshape(step.inputs[0], shape[:2] + (1,) * (len(shape) - 2))
        return [step.op("Add", step.op("Mul", factor, step.inputs[1]), step.inputs[2])]
