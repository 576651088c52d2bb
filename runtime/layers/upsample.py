"""Upsample: the inverse of a MAX Pooling. Caffe: SegNet's upsample_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.geometry_limits import check_count, image_shape
from runtime.backend.base import HostArray
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

Pair = tuple[int, int]


@register("Upsample")
class UpsampleLayer(Layer):
    """Each number goes to the place in its plane that the mask gives; zero elsewhere.

    The mask is the second top of a MAX Pooling whose bottom has the top's height and width.

    Shapes: bottom and mask (N,C,H,W); top (N,C,P,Q).
    """

    num_bottom = exactly(2)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True except for the mask."""
        return bottom_index == 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the size and shape the top.

        Raises:
            ShapeError, ProtoError: the mask or the size does not suit the bottom.
        """
        n, c, h, w = image_shape(bottom[0].shape, self.label)
        if bottom[1].shape != bottom[0].shape:
            raise ShapeError(
                f"{self.label}: the mask does not fit; expected shape {bottom[0].shape} as the "
                f"first bottom, got {bottom[1].shape}; give the second top of the Pooling"
            )
        size = self._size((h, w))
        check_count("the result", (n, c, *size), self.label)
        self.plane_size = size[0] * size[1]
        top[0].reshape((n, c, *size))

    def _size(self, plane: Pair) -> Pair:
        param = self.param.upsample_param
        if param.HasField("upsample_h") != param.HasField("upsample_w"):
            raise ProtoError(f"{self.label}: expected both upsample_h and upsample_w, got one")
        if param.HasField("scale_h") != param.HasField("scale_w"):
            raise ProtoError(f"{self.label}: expected both scale_h and scale_w, got one")
        if param.HasField("upsample_h"):
            size = (int(param.upsample_h), int(param.upsample_w))
        else:
            scales = (param.scale, param.scale)
            if param.HasField("scale_h"):
                scales = (param.scale_h, param.scale_w)
            pads = (param.pad_out_h, param.pad_out_w)
            if any(pad and scale != 2 for pad, scale in zip(pads, scales)):
                raise ProtoError(
                    f"{self.label}: pad_out_h and pad_out_w are for a scale of 2; expected it, got "
                    f"{scales}; give upsample_h and upsample_w instead"
                )
            height, width = (
                length * int(scale) - int(pad) for length, scale, pad in zip(plane, scales, pads)
            )
            size = (height, width)
        if min(size) < 1:
            raise ProtoError(f"{self.label}: the size is {size}; expected at least 1x1")
        return size

    def _index(self, bottom: Blobs) -> HostArray:
        """The mask as integers, one row per plane."""
        n, c, h, w = bottom[1].shape
        mask = bottom[1].data.host().reshape(n * c, h * w)
        if mask.size and not (mask.min() >= 0 and mask.max() < self.plane_size):
            raise ShapeError(
                f"{self.label}: the mask has a place outside of the top; expected 0 to "
                f"{self.plane_size - 1}, got {mask.min():g} to {mask.max():g}; give the size of "
                "the Pooling's bottom by upsample_h and upsample_w"
            )
        return mask.astype(np.int64)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Place the numbers; of several for one place, the last counts."""
        index = self._index(bottom)
        y = top[0].data.mutable_host()
        y[...] = 0
        planes = y.reshape(index.shape[0], self.plane_size)
        np.put_along_axis(planes, index, bottom[0].data.host().reshape(index.shape), axis=1)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Read the gradient at the places."""
        if propagate_down[0]:
            index = self._index(bottom)
            dy = top[0].diff.host().reshape(index.shape[0], self.plane_size)
            dx = np.take_along_axis(dy, index, axis=1)
            bottom[0].diff.mutable_host()[...] = dx.reshape(bottom[0].shape)

    @property
    def index_limit(self) -> int:
        """The mask holds places in a plane of the top."""
        return self.plane_size

    def to_onnx(self, step: OnnxStep) -> list[str]:
        n, c, h, w = step.bottom[0].shape
        rows = (n * c, h * w)
        index = step.op("Cast", step.reshape(step.inputs[1], rows), to=_ONNX_INT64)
        zeros = step.constant(np.zeros((n * c, self.plane_size), np.float32), "zeros")
        values = step.reshape(step.inputs[0], rows)
        placed = step.op("ScatterElements", zeros, index, values, axis=1)
        return [step.reshape(placed, step.top[0].shape)]


_ONNX_INT64 = 7
"""TensorProto.INT64."""
