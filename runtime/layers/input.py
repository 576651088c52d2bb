"""Input: blobs that the caller fills. Caffe: input_layer.cpp."""

from __future__ import annotations

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer, at_least, exactly
from runtime.core.layer_registry import register


@register("Input")
class InputLayer(Layer):
    """Tops with the shapes in input_param: none (set later), one for all tops, or one per top."""

    applies_densely = True
    is_input = True
    shape_param = "input_param"
    reads_images = True

    num_bottom, num_top = exactly(0), at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the tops; the caller may reshape them later.

        Raises:
            ProtoError: the number of shapes is wrong.
        """
        shapes = self.param.input_param.shape
        if len(shapes) not in (0, 1, len(top)):
            raise ProtoError(
                f"{self.label}: expected 0, 1 or {len(top)} shapes in input_param, "
                f"got {len(shapes)}"
            )
        for i, blob in enumerate(top):
            if len(shapes):
                blob.reshape([int(d) for d in shapes[i if len(shapes) > 1 else 0].dim])

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: the caller sets the shapes."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: the caller writes the data."""

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """The inputs of the graph, named as the tops."""
        return [str(name) for name in self.param.top]
