"""Pooling: MAX and AVE. Caffe: pooling_layer.cpp. Paper: 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.geometry import PoolGeometry
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep, Places, PlainLayer, Window
from runtime.core.layer import Blobs, Layer, between
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("Pooling")
class PoolingLayer(Layer):
    """MAX or AVE over windows; for MAX, a second top has the index of the maximum in its plane.

    Shapes: bottom (N,C,H,W); tops (N,C,P,Q).
    """

    applies_densely = True
    places = Places.WINDOW
    only_ops = True

    num_top = between(1, 2)
    in_place = False

    geom: PoolGeometry

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the method.

        Raises:
            UnsupportedError: it is STOCHASTIC.
            ProtoError: there is a second top without MAX.
        """
        method = self.param.pooling_param.pool
        self.is_max = method == proto.PoolingParameter.MAX
        if method == proto.PoolingParameter.STOCHASTIC:
            raise UnsupportedError(
                f"{self.label}: STOCHASTIC pooling is not supported (original Caffe has it on GPUs "
                "only); expected MAX or AVE"
            )
        if len(top) == 2 and not self.is_max:
            raise ProtoError(f"{self.label}: a second top is for MAX pooling; remove it")
        self.mask = SyncedMemory(self.backend, np.dtype(np.int32))
        self._shape: tuple[int, ...] | None = None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape tops and mask.

        Raises:
            ProtoError, ShapeError: the parameters do not suit the shape.
        """
        shape = bottom[0].shape
        if shape != self._shape:
            self.geom = PoolGeometry.from_param(self.param.pooling_param, shape, self.label)
            self._shape = shape
        for blob in top:
            blob.reshape(self.geom.out_shape)
        if self.is_max:
            self.mask.reshape(self.geom.out_shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the maxima, with their mask, or the means."""
        x, y = bottom[0].data.dev(), top[0].data.mutable_dev()
        if not self.is_max:
            self.backend.pool.ave_forward(self.geom, x, y)
            return
        self.backend.pool.max_forward(self.geom, x, y, self.mask.mutable_dev())
        if len(top) == 2:
            top[1].data.mutable_host()[...] = self.mask.host()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradient at the maximum, or distribute it over the window."""
        if not propagate_down[0]:
            return
        dy, dx = top[0].diff.dev(), bottom[0].diff.mutable_dev()
        if self.is_max:
            self.backend.pool.max_backward(self.geom, dy, self.mask.dev(), dx)
        else:
            self.backend.pool.ave_backward(self.geom, dy, dx)

    def backward_relu(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Apply the gradient of the ReLU to the top, which is smaller than the bottom.

        A maximum is above 0 if and only if the element of the bottom that it comes from is.
        """
        if propagate_down[0]:
            self.backend.neurons.relu_backward(
                top[0].data.dev(), top[0].diff.dev(), top[0].diff.mutable_dev(), 0.0
            )
        self.backward(top, propagate_down, bottom)

    @property
    def can_gate_relu(self) -> bool:
        """Whether the method is MAX."""
        return bool(self.param.pooling_param.pool == proto.PoolingParameter.MAX)

    def spatial_window(self) -> Window:
        return Window(self.geom.kernel, self.geom.stride, self.geom.pad)

    @classmethod
    def pools_globally(cls, param: Any) -> bool:
        return bool(param.pooling_param.global_pooling)

    def bvlc_form(self, param: Any) -> list[PlainLayer]:
        """With round_mode for ceil_mode."""
        pooling = param.pooling_param
        if pooling.HasField("ceil_mode"):
            if not pooling.ceil_mode:
                pooling.round_mode = proto.PoolingParameter.FLOOR
            pooling.ClearField("ceil_mode")
        return super().bvlc_form(param)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """See Layer.to_onnx.

        Raises:
            UnsupportedError: a window is outside of the image.
        """
        if self.param.pooling_param.global_pooling and len(step.top) == 1:
            return [
                step.op("GlobalMaxPool" if self.is_max else "GlobalAveragePool", step.inputs[0])
            ]
        geom = self.geom
        if step.any_size:
            return self._onnx_for_any_size(step)
        # Caffe rounds sizes up and ONNX rounds down: padding up to the end of the last window gives
        # the same size in all versions of ONNX.
        ends = [
            max(0, (out - 1) * geom.stride[i] + geom.kernel[i] - size - geom.pad[i])
            for i, (out, size) in enumerate(zip(geom.out_shape[2:], geom.in_shape[2:]))
        ]
        if any(end >= kernel for end, kernel in zip(ends, geom.kernel)):
            raise step.refuse("a window outside of the image")
        shared = {
            "kernel_shape": geom.kernel,
            "strides": geom.stride,
            "pads": (*geom.pad, *ends),
        }
        if len(step.top) == 2:
            return _onnx_with_places(step, geom, shared)
        if self.is_max:
            return [step.op("MaxPool", step.inputs[0], **shared)]
        value = step.op("AveragePool", step.inputs[0], count_include_pad=1, **shared)
        correction = _average_correction(geom)
        if not np.all(correction == 1):
            value = step.op("Mul", value, step.constant(correction, "window"))
        return [value]

    def _onnx_for_any_size(self, step: OnnxStep) -> list[str]:
        """A node that rounds the size of the top as the layer does."""
        if len(step.top) == 2:
            raise step.refuse("a mask for images of any size")
        param = self.param.pooling_param
        down = param.round_mode == proto.PoolingParameter.FLOOR
        if param.HasField("ceil_mode"):
            down = not param.ceil_mode
        shared = {
            "kernel_shape": self.geom.kernel,
            "strides": self.geom.stride,
            "pads": self.geom.pad * 2,
            "ceil_mode": int(not down),
        }
        if self.is_max:
            return [step.op("MaxPool", step.inputs[0], **shared)]
        # Without padding, a window at the border has the pixels of the image alone.
        padded = int(any(self.geom.pad))
        return [step.op("AveragePool", step.inputs[0], count_include_pad=padded, **shared)]


def _onnx_with_places(
    step: OnnxStep, geometry: PoolGeometry, attributes: dict[str, Any]
) -> list[str]:
    """A MaxPool with the indices of the maxima in their planes; ONNX counts over all planes."""
    value, places = step.ops("MaxPool", step.inputs[0], outputs=2, **attributes)
    plane = step.constant(np.array(geometry.h * geometry.w, np.int64), "plane")
    return [value, step.op("Cast", step.op("Mod", places, plane), to=_ONNX_FLOAT)]


_ONNX_FLOAT = 1
"""TensorProto.FLOAT."""


def _average_correction(geometry: PoolGeometry) -> HostArray:
    """The size of the kernel / the divisor of Caffe, which is the part of the window in size + pad.

    Shapes: (1,1,P,Q).
    """
    factors = []
    for i, size in enumerate(geometry.in_shape[2:]):
        starts = np.arange(geometry.out_shape[2 + i]) * geometry.stride[i] - geometry.pad[i]
        stops = np.minimum(starts + geometry.kernel[i], size + geometry.pad[i])
        factors.append(geometry.kernel[i] / (stops - starts))
    return np.multiply.outer(factors[0], factors[1])[None, None].astype(np.float32)
