"""Eltwise: product, weighted sum or maximum of blobs of equal shape. Caffe: eltwise_layer.cpp."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer, at_least
from runtime.core.layer_registry import register


@register("Eltwise")
class EltwiseLayer(Layer):
    """The element-wise product, weighted sum or maximum of the bottoms.

    Shapes: bottoms and top have the same shape.
    """

    applies_densely = True
    places = Places.SAME

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
        self.coeff = coeff or [1.0] * len(bottom)

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
        inputs = [blob.data.host() for blob in bottom]
        if self.operation == proto.EltwiseParameter.PROD:
            out = inputs[0] * inputs[1]
            for x in inputs[2:]:
                out *= x
        elif self.operation == proto.EltwiseParameter.SUM:
            out = inputs[0] * self.coeff[0]
            for x, c in zip(inputs[1:], self.coeff[1:]):
                out += x * c
        else:
            # Ties as in Caffe: the second bottom wins over the first, later ones must be larger.
            self.winner = np.where(inputs[0] > inputs[1], 0, 1)
            out = np.where(inputs[0] > inputs[1], inputs[0], inputs[1])
            for i, x in enumerate(inputs[2:], start=2):
                larger = x > out
                self.winner[larger] = i
                out[larger] = x[larger]
        top[0].data.mutable_host()[...] = out

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of each bottom."""
        dy = top[0].diff.host()
        for i, (blob, down) in enumerate(zip(bottom, propagate_down)):
            if not down:
                continue
            slope: Any
            if self.operation == proto.EltwiseParameter.PROD:
                slope = self._others(i, top, bottom)
            elif self.operation == proto.EltwiseParameter.SUM:
                slope = self.coeff[i]
            else:
                slope = self.winner == i
            blob.diff.mutable_host()[...] = dy * slope

    def _others(self, index: int, top: Blobs, bottom: Blobs) -> np.ndarray:
        """The product of the other bottoms; by a division if stable_prod_grad is false."""
        if not self.param.eltwise_param.stable_prod_grad:
            return np.asarray(top[0].data.host() / bottom[index].data.host())
        rest = [blob.data.host() for j, blob in enumerate(bottom) if j != index]
        return np.asarray(np.prod(np.stack(rest), axis=0))

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
