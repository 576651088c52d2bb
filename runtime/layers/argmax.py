"""ArgMax. Caffe: argmax_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("ArgMax")
class ArgMaxLayer(Layer):
    """Indices, or values, of the top_k largest elements along an axis or of each sample.

    Shapes: with `axis`, that axis becomes top_k; without, top (N, 1 or 2, top_k).
    """

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check top_k against the size of the axis, and shape the top.

        Raises:
            ProtoError: top_k is out of range.
        """
        param = self.param.argmax_param
        self.top_k = int(param.top_k)
        self.axis: int | None = None
        if param.HasField("axis"):
            self.axis = bottom[0].canonical_axis(param.axis, self.label)
        self.samples(bottom[0])
        size = bottom[0].count(1) if self.axis is None else bottom[0].shape[self.axis]
        if not 1 <= self.top_k <= size:
            raise ProtoError(
                f"{self.label}: top_k is {self.top_k}; expected 1 .. {size} for {bottom[0].shape}"
            )
        if self.axis is not None:
            shape = list(bottom[0].shape)
            shape[self.axis] = self.top_k
            top[0].reshape(shape)
            return
        kinds = 2 if self.param.argmax_param.out_max_val else 1
        axes = max(bottom[0].num_axes, 3)
        top[0].reshape((bottom[0].shape[0], kinds, self.top_k, *(1,) * (axes - 3)))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Sort; of equal values, the one with the larger index comes first, as in Caffe."""
        x = bottom[0].data.host()
        if self.axis is None:
            values = x.reshape(x.shape[0], bottom[0].count(1))
        else:
            values = np.moveaxis(x, self.axis, -1)
        # Caffe sorts pairs (value, index) in descending order.
        order = np.argsort(values, axis=-1, kind="stable")[..., ::-1][..., : self.top_k]
        best = np.take_along_axis(values, order, axis=-1)
        out = top[0].data.mutable_host()
        if self.axis is not None:
            chosen = best if self.param.argmax_param.out_max_val else order
            out[...] = np.moveaxis(chosen, -1, self.axis)
        elif self.param.argmax_param.out_max_val:
            out[...] = np.stack([order, best], axis=1).reshape(out.shape)
        else:
            out[...] = order.reshape(out.shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Raise an error: an index has no gradient.

        Raises:
            ProtoError: a gradient is requested.
        """
        if propagate_down[0]:
            raise ProtoError(f"{self.label}: has no gradient; set propagate_down: false")

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """See Layer.to_onnx.

        Raises:
            UnsupportedError: top_k is above 1, or the top has both indices and maxima.
        """
        param = self.param.argmax_param
        if self.top_k != 1 or (param.out_max_val and self.axis is None):
            raise step.refuse("top_k above 1, or both index and maximum,")
        value, axis = step.inputs[0], 1
        if self.axis is None:
            value = step.reshape(value, (step.bottom[0].shape[0], -1))
        else:
            axis = self.axis
        if param.out_max_val:
            return [step.reduce("ReduceMax", value, [axis])]
        place = step.op("ArgMax", value, axis=axis, keepdims=1, select_last_index=1)
        return [step.reshape(step.op("Cast", place, to=1), step.top[0].shape)]
