"""Eltwise: product, weighted sum or maximum of blobs of equal shape. Caffe: eltwise_layer.cpp."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("Eltwise")
class EltwiseLayer(Layer):
    """The element-wise product, weighted sum or maximum of the bottoms.

    Shapes: bottoms and top have the same shape.
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True
    can_rectify = True

    num_bottom = at_least(2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the operation and the coefficients.

        Raises:
            ProtoError: coefficients for another operation than SUM, or not one per bottom.
        """
        param = self.param.eltwise_param
        self.operation = int(param.operation)
        coeff = [float(c) for c in param.coeff]
        if coeff and len(coeff) != len(bottom):
            raise ProtoError(
                f"{self.label}: expected no coeff or one for each of {len(bottom)} bottoms, "
                f"got {len(coeff)}"
            )
        if coeff and self.operation == proto.EltwiseParameter.PROD:
            raise ProtoError(f"{self.label}: coeff is for SUM; remove it")
        is_product = self.operation == proto.EltwiseParameter.PROD
        self.host_only = is_product and not param.stable_prod_grad
        self.coeff = coeff or [1.0] * len(bottom)
        self.winner = SyncedMemory(self.backend, np.dtype(np.int32))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ShapeError: the shapes of the bottoms differ.
        """
        for blob in bottom[1:]:
            if blob.shape != bottom[0].shape:
                raise ShapeError(
                    f"{self.label}: expected bottoms of equal shape, got {bottom[0].shape} and "
                    f"{blob.shape}"
                )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Combine the bottoms."""
        self._combine(bottom, top, relu=False)

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Combine the bottoms and apply a ReLU."""
        self._combine(bottom, top, relu=True)

    def _combine(self, bottom: Blobs, top: Blobs, *, relu: bool) -> None:
        pointwise = self.backend.pointwise
        inputs, y = [blob.data.dev() for blob in bottom], top[0].data.mutable_dev()
        if self.operation == proto.EltwiseParameter.SUM:
            pointwise.eltwise_sum(inputs, self.coeff, relu, y)
            return
        if self.operation == proto.EltwiseParameter.PROD:
            pointwise.eltwise_product(inputs, y)
        else:
            self.winner.reshape(bottom[0].shape)
            pointwise.eltwise_max(inputs, y, self.winner.mutable_dev())
        if relu:
            self.backend.neurons.relu_forward(y, y, 0.0)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of each bottom."""
        pointwise = self.backend.pointwise
        for i, blob in enumerate(bottom):
            if not propagate_down[i]:
                continue
            if self.operation == proto.EltwiseParameter.PROD:
                self._product_backward(i, top, bottom)
                continue
            dy, dx = top[0].diff.dev(), blob.diff.mutable_dev()
            if self.operation == proto.EltwiseParameter.SUM:
                pointwise.eltwise_sum([dy], [self.coeff[i]], False, dx)
            else:
                pointwise.eltwise_max_backward(dy, self.winner.dev(), i, dx)

    def _product_backward(self, index: int, top: Blobs, bottom: Blobs) -> None:
        """dy times the other bottoms; if stable_prod_grad is false, by a division on the host."""
        if self.param.eltwise_param.stable_prod_grad:
            others = [blob.data.dev() for j, blob in enumerate(bottom) if j != index]
            dx = bottom[index].diff.mutable_dev()
            self.backend.pointwise.eltwise_product([top[0].diff.dev(), *others], dx)
            return
        quotient = top[0].data.host() / bottom[index].data.host()
        bottom[index].diff.mutable_host()[...] = top[0].diff.host() * quotient

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param, values = self.param.eltwise_param, list(step.inputs)
        if param.operation == proto.EltwiseParameter.SUM and len(param.coeff):
            values = [step.affine(value, coeff, 0.0) for value, coeff in zip(values, param.coeff)]
        op = {
            proto.EltwiseParameter.PROD: "Mul",
            proto.EltwiseParameter.SUM: "Add",
            proto.EltwiseParameter.MAX: "Max",
        }[param.operation]
        return [functools.reduce(lambda a, b: step.op(op, a, b), values)]
