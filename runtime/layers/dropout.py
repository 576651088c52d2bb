"""Dropout. Caffe: dropout_layer.cpp. Paper: 3.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_prep.philox import stream_of
from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from runtime.backend.base import Draw
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("Dropout")
class DropoutLayer(Layer):
    """TRAIN drops elements and scales up the others; TEST is the identity. May work in place.

    The mask is a function of (seed, layer, sample number, element): the same on every device and
    for every split of the batch. Original Caffe draws it from its random stream; the context has an
    option for that.
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the ratio.

        Raises:
            ProtoError: it is out of range.
        """
        self.ratio = float(self.param.dropout_param.dropout_ratio)
        if not 0.0 <= self.ratio < 1.0:
            raise ProtoError(
                f"{self.label}: dropout_ratio is {self.ratio:g}; expected at least 0, below 1"
            )
        self.mask = SyncedMemory(self.backend, np.dtype(np.uint8))
        self.stream = stream_of(str(self.param.name))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set top and mask to the shape of the bottom."""
        top[0].reshape_like(bottom[0])
        self.mask.reshape(bottom[0].shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Draw and apply the mask; in TEST, copy."""
        x, y = bottom[0].data, top[0].data
        if self.phase == proto.TRAIN and self.context.caffe_dropout:
            kept = self.context.rng.bernoulli(self.mask.count, 1.0 - self.ratio)
            self.mask.mutable_host()[...] = kept.reshape(self.mask.shape)
            # Forward and backward apply the mask in the same way.
            self.backend.neurons.dropout_backward(
                x.dev(), self.mask.dev(), y.mutable_dev(), self.ratio
            )
        elif self.phase == proto.TRAIN:
            samples = bottom[0].shape[0] if bottom[0].num_axes else 1
            draw = Draw(self.context.seed, self.stream, self.context.pass_number * samples)
            self.backend.neurons.dropout_forward(
                x.dev(), y.mutable_dev(), self.mask.mutable_dev(), self.ratio, draw
            )
        elif top[0] is not bottom[0]:
            self.backend.memory.copy(x.dev(), y.mutable_dev())

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The gradient of the elements that were not dropped."""
        if not propagate_down[0]:
            return
        if self.phase == proto.TRAIN:
            self.backend.neurons.dropout_backward(
                top[0].diff.dev(), self.mask.dev(), bottom[0].diff.mutable_dev(), self.ratio
            )
        elif top[0] is not bottom[0]:
            self.backend.memory.copy(top[0].diff.dev(), bottom[0].diff.mutable_dev())

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """The same values under other names, without a node."""
        return [step.inputs[0]] * len(step.top)
