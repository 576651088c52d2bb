"""DummyData: blobs from fillers. Caffe: dummy_data_layer.cpp."""

from __future__ import annotations

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from runtime.filler import fill
from runtime.layer import Blobs, Layer, at_least, exactly
from runtime.layer_factory import register


@register("DummyData")
class DummyDataLayer(Layer):
    """Constants are filled once, random numbers again for every pass.

    Shapes: `shape` (or num, channels, height, width), one for all tops or one each.
    """

    num_bottom, num_top = exactly(0), at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read shapes and fillers."""
        param = self.param.dummy_data_param
        legacy = [param.num, param.channels, param.height, param.width]
        shapes = [[int(d) for d in shape.dim] for shape in param.shape]
        if not shapes:
            if len({len(values) for values in legacy}) != 1:
                raise ProtoError(
                    f"{self.label}: expected equally many num, channels, height and width"
                )
            shapes = [list(map(int, dims)) for dims in zip(*legacy)]
        fillers = list(param.data_filler) or [proto.FillerParameter(type="constant", value=0)]
        for word, given in (("shape", shapes), ("data_filler", fillers)):
            if len(given) not in (1, len(top)):
                raise ProtoError(
                    f"{self.label}: expected 1 or {len(top)} {word} entries, got {len(given)}"
                )
        self.fillers = fillers if len(fillers) > 1 else fillers * len(top)
        for i, blob in enumerate(top):
            blob.reshape(shapes[i if len(shapes) > 1 else 0])
            if self.fillers[i].type == "constant":
                fill(blob, self.fillers[i], self.context, self.label)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """The shapes are fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Draw what is random."""
        for blob, filler in zip(top, self.fillers):
            if filler.type != "constant":
                fill(blob, filler, self.context, self.label)
