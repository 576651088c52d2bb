"""PReLU: ReLU with a learnt slope below 0. Caffe: prelu_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from runtime.backend.base import Layout
from runtime.core.blob import Blob
from runtime.core.description import OnnxStep, Places
from runtime.core.filler import fill_weight
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("PReLU")
class PReLULayer(Layer):
    """y = x above 0, slope[c] * x below. May work in place.

    Shapes: bottom (N,C,...); blobs[0] (C,), or () with channel_shared.
    """

    applies_densely = True
    places = Places.SAME
    only_ops = True

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Create and fill the slopes, by default with 0.25.

        Raises:
            ShapeError: the bottom has fewer than 2 axes.
        """
        if bottom[0].num_axes < 2:
            raise ShapeError(
                f"{self.label}: expected at least 2 axes (N,C,...), got {bottom[0].shape}"
            )
        param = self.param.prelu_param
        shape = () if param.channel_shared else (bottom[0].shape[1],)
        self.blobs = [Blob(self.backend, shape, "slope")]
        filler = param.filler
        if not param.HasField("filler"):
            filler = proto.FillerParameter(type="constant", value=0.25)
        fill_weight(self, 0, filler)
        self.kept_input = SyncedMemory(self.backend)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the top to the shape of the bottom.

        Raises:
            ShapeError: the number of channels has changed.
        """
        shared = self.param.prelu_param.channel_shared
        if not shared and bottom[0].shape[1:2] != self.blobs[0].shape:
            raise ShapeError(
                f"{self.label}: expected {self.blobs[0].count()} channels as when the net was "
                f"built, got shape {bottom[0].shape}"
            )
        top[0].reshape_like(bottom[0])

    def _layout(self, bottom: Blobs) -> Layout:
        shape, count = bottom[0].shape, bottom[0].count()
        if self.param.prelu_param.channel_shared:
            return Layout(1, 1, count)
        return Layout(shape[0], shape[1], count // max(1, shape[0] * shape[1]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Apply the function; in place, keep the input for the gradient."""
        x = bottom[0].data.dev()
        if top[0] is bottom[0] and not self.context.never_backward(self.phase):
            self.kept_input.reshape(bottom[0].shape)
            self.backend.memory.copy(x, self.kept_input.mutable_dev())
        slope, y = self.blobs[0].data.dev(), top[0].data.mutable_dev()
        self.backend.pointwise.prelu_forward(self._layout(bottom), x, slope, y)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Gradients of slopes and input."""
        layout, dy = self._layout(bottom), top[0].diff.dev()
        x = (self.kept_input if top[0] is bottom[0] else bottom[0].data).dev()
        if self.propagates_to_params(0):
            dslope = self.blobs[0].diff.mutable_dev()
            self.backend.pointwise.prelu_backward_slope(layout, x, dy, dslope)
        if propagate_down[0]:
            slope, dx = self.blobs[0].data.dev(), bottom[0].diff.mutable_dev()
            self.backend.pointwise.prelu_backward(layout, x, dy, slope, dx)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        # The slope broadcasts from the right: (C,1,1) over (N,C,H,W).
        shape = (self.blobs[0].count(),) + (1,) * (len(step.bottom[0].shape) - 2)
        return [step.op("PRelu", step.inputs[0], step.weight(0, shape))]
