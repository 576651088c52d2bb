"""LabelSpecificAdd: a margin for the score of the true class. Source: AM-Softmax's fork."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register
from runtime.layers.labels import check_labels


@register("LabelSpecificAdd")
class LabelSpecificAddLayer(Layer):
    """In TRAIN, adds the bias to the scores of the true classes that are above its negative.

    Shapes: bottoms (N,C,...) scores and (N,) labels; top as the scores.
    """

    num_bottom = exactly(2)
    in_place = False

    def allow_force_backward(self, bottom_index: int) -> bool:
        """True for the scores."""
        return bottom_index == 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ShapeError: there is not one label per sample.
        """
        if bottom[1].count() != self.samples(bottom[0]):
            raise ShapeError(
                f"{self.label}: expected one label for each of {bottom[0].shape[0]} samples, got "
                f"shape {bottom[1].shape}; correct the bottoms"
            )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Add the bias."""
        param = self.param.label_specific_add_param
        y = top[0].data.mutable_host()
        y[...] = bottom[0].data.host()
        if self.phase != proto.TRAIN and not param.transform_test:
            return
        scores = y.reshape(len(y), bottom[0].count(1))
        check_labels(bottom[1], scores.shape[1], None, self.label)
        true = bottom[1].data.host().ravel().astype(np.int64)
        samples = np.arange(len(true))
        own = scores[samples, true]
        bias = np.float32(param.bias)
        scores[samples, true] = np.where(own > -bias, own + bias, own)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Copy the gradient.

        Raises:
            ProtoError: a gradient of the labels is requested.
        """
        if propagate_down[1]:
            raise ProtoError(f"{self.label}: labels have no gradient; set propagate_down: false")
        if propagate_down[0]:
            bottom[0].diff.mutable_host()[...] = top[0].diff.host()

    def to_onnx(self, step: OnnxStep) -> list[str]:
        if self.param.label_specific_add_param.transform_test:
            raise step.refuse("transform_test")
        return [step.inputs[0]]
