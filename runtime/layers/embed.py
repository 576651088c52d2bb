"""Embed: a row of weights for each index. Caffe: embed_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import DataError, ProtoError
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Embed")
class EmbedLayer(Layer):
    """Looks up rows of weights.

    Shapes: bottom (M...) of integers below input_dim; blobs[0] (input_dim,num_output),
    blobs[1] (num_output,); top (M..., num_output).
    """

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the rows and the bias.

        Raises:
            ProtoError: input_dim or num_output is below 1.
        """
        param = self.param.embed_param
        self.rows, self.width = int(param.input_dim), int(param.num_output)
        if self.rows < 1 or self.width < 1:
            raise ProtoError(
                f"{self.label}: input_dim {self.rows}, num_output {self.width}; "
                "expected at least 1 each"
            )
        self.blobs = [Blob(self.backend, (self.rows, self.width), "weight")]
        fill_weight(self, 0, param.weight_filler)
        if param.bias_term:
            self.blobs.append(Blob(self.backend, (self.width,), "bias"))
            fill_weight(self, 1, param.bias_filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top, which has one more axis than the bottom."""
        top[0].reshape((*bottom[0].shape, self.width))

    def _indices(self, bottom: Blobs) -> np.ndarray:
        index = bottom[0].data.host().ravel()
        bad = ~((index >= 0) & (index < self.rows) & (index == np.floor(index)))
        if bad.any():
            raise DataError(
                f"{self.label}: index {index[bad][0]:g}; expected integers "
                f"0 .. {self.rows - 1}; check the data and input_dim"
            )
        return np.asarray(index.astype(np.int64))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the rows and add the bias.

        Raises:
            DataError: an index is out of range or not an integer.
        """
        out = self.blobs[0].data.host()[self._indices(bottom)]
        if len(self.blobs) > 1:
            out = out + self.blobs[1].data.host()
        top[0].data.mutable_host()[...] = out.reshape(top[0].shape)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of rows and bias.

        Raises:
            ProtoError: a gradient of the indices is requested.
        """
        if propagate_down[0]:
            raise ProtoError(f"{self.label}: indices have no gradient; set propagate_down: false")
        dy = top[0].diff.host().reshape(-1, self.width)
        if self.propagates_to_params(0):
            np.add.at(self.blobs[0].diff.mutable_host(), self._indices(bottom), dy)
        if len(self.blobs) > 1 and self.propagates_to_params(1):
            self.blobs[1].diff.mutable_host()[...] += dy.sum(axis=0)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        # 7 is int64 in ONNX.
        index = step.op("Cast", step.inputs[0], to=7)
        value = step.op("Gather", step.weight(0), index)
        if len(self.blobs) > 1:
            value = step.op("Add", value, step.weight(1))
        return [value]

    @property
    def index_limit(self) -> int:
        """The number of rows."""
        return self.rows
