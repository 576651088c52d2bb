"""Reduction: SUM, ASUM, SUMSQ or MEAN of the trailing axes. Caffe: reduction_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Reduction")
class ReductionLayer(Layer):
    """Reduces the axes from `axis` on to one number, times coeff."""

    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top: the axes before `axis`.

        Raises:
            ShapeError: MEAN of no elements.
        """
        param = self.param.reduction_param
        axis = bottom[0].canonical_axis(param.axis, self.label)
        self.rows, self.cols = bottom[0].count(0, axis), bottom[0].count(axis)
        self.operation, self.coeff = int(param.operation), float(param.coeff)
        if self.operation == proto.ReductionParameter.MEAN:
            if not self.cols:
                raise ShapeError(
                    f"{self.label}: no elements to compute the mean; expected at least one from "
                    f"axis {axis} on, got shape {bottom[0].shape}; change the axis or the input"
                )
            self.coeff /= self.cols
        top[0].reshape(bottom[0].shape[:axis])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the reduction."""
        kernels = self.backend.kernels
        if kernels is not None:
            result = top[0].data.mutable_dev()
            args = (bottom[0].data.dev(), None, result, self.cols, *self._settings())
            kernels.run("rows", "reduce_rows", self.rows, args)
            return
        x: Any = bottom[0].data.host().reshape(self.rows, self.cols)
        if self.operation == proto.ReductionParameter.ASUM:
            x = np.abs(x)
        elif self.operation == proto.ReductionParameter.SUMSQ:
            x = np.square(x)
        out = top[0].data.mutable_host()
        out[...] = (x.sum(axis=1) * self.coeff).reshape(out.shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradient of the bottom."""
        if not propagate_down[0]:
            return
        kernels, count = self.backend.kernels, bottom[0].count()
        if kernels is not None:
            arrays = (bottom[0].data.dev(), top[0].diff.dev(), bottom[0].diff.mutable_dev())
            args = (*arrays, count, self.cols, *self._settings())
            kernels.elementwise("rows", "reduce_rows_backward", count, args)
            return
        x = bottom[0].data.host().reshape(self.rows, self.cols)
        slope: Any = np.ones_like(x)
        if self.operation == proto.ReductionParameter.ASUM:
            slope = np.sign(x)
        elif self.operation == proto.ReductionParameter.SUMSQ:
            slope = 2 * x
        dy = top[0].diff.host().reshape(self.rows, 1) * self.coeff
        bottom[0].diff.mutable_host()[...] = (dy * slope).reshape(bottom[0].shape)

    def _settings(self) -> tuple[int, float]:
        """The operation as the kernels number it, and the factor."""
        kinds = {
            proto.ReductionParameter.ASUM: 1,
            proto.ReductionParameter.SUMSQ: 2,
        }
        return kinds.get(self.operation, 0), self.coeff

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param = self.param.reduction_param
        value = step.reshape(step.inputs[0], (self.rows, self.cols))
        op = {
            proto.ReductionParameter.SUM: "ReduceSum",
            proto.ReductionParameter.ASUM: "ReduceL1",
            proto.ReductionParameter.SUMSQ: "ReduceSumSquare",
            proto.ReductionParameter.MEAN: "ReduceMean",
        }[param.operation]
        value = step.reduce(op, value, [1], keepdims=False)
        return [step.reshape(step.affine(value, param.coeff, 0.0), step.top[0].shape)]
