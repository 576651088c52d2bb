"""DummyData: blobs from fillers. Caffe: dummy_data_layer.cpp."""

from __future__ import annotations

from typing import Any

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from runtime.core.filler import fill
from runtime.core.layer import Blobs, Layer, at_least, exactly
from runtime.core.layer_registry import register


@register("DummyData")
class DummyDataLayer(Layer):
    """Tops filled with constants once, or with random numbers in every pass.

    Shapes: `shape` (or num, channels, height, width), given once for all tops or for each.
    """

    shape_param = "dummy_data_param"

    num_bottom, num_top = exactly(0), at_least(1)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read shapes and fillers.

        Raises:
            ProtoError: there are not as many as tops, or the shapes are given twice.
        """
        param = self.param.dummy_data_param
        shapes = [[int(d) for d in shape.dim] for shape in param.shape]
        if param.num or param.channels or param.height or param.width:
            shapes = self._legacy_shapes(len(top))
        fillers = list(param.data_filler) or [proto.FillerParameter(type="constant", value=0)]
        for field, values in (("shape", shapes), ("data_filler", fillers)):
            if len(values) not in (1, len(top)):
                raise ProtoError(
                    f"{self.label}: expected 1 or {len(top)} {field} entries, got {len(values)}"
                )
        self.fillers = fillers if len(fillers) > 1 else fillers * len(top)
        for i, blob in enumerate(top):
            blob.reshape(shapes[i if len(shapes) > 1 else 0])
            if self.fillers[i].type == "constant":
                fill(blob, self.fillers[i], self.context, self.label)

    def _legacy_shapes(self, tops: int) -> list[list[int]]:
        """Shapes from num, channels, height and width, each given once or once for each top."""
        param = self.param.dummy_data_param
        if param.shape:
            raise ProtoError(
                f"{self.label}: both shape and num, channels, height, width are given; expected one"
            )
        columns = []
        for field in ("num", "channels", "height", "width"):
            values = [int(v) for v in getattr(param, field)]
            if len(values) not in (1, tops):
                raise ProtoError(
                    f"{self.label}: expected 1 or {tops} {field} entries, got {len(values)}"
                )
            columns.append(values * tops if len(values) == 1 else values)
        return [list(dims) for dims in zip(*columns)]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Do nothing: the shapes are fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Fill the tops with random fillers."""
        for blob, filler in zip(top, self.fillers):
            if filler.type != "constant":
                fill(blob, filler, self.context, self.label)

    @classmethod
    def divisible_batch(cls, param: Any) -> int | None:
        """The batch size, if all fillers are constants: random numbers depend on earlier draws."""
        dummy = param.dummy_data_param
        firsts = {int(shape.dim[0]) for shape in dummy.shape if len(shape.dim)} | set(dummy.num)
        if len(firsts) == 1 and all(filler.type == "constant" for filler in dummy.data_filler):
            return int(firsts.pop())
        return None

    @classmethod
    def set_batch(cls, param: Any, batch: int) -> None:
        """Change the first dimension of all tops."""
        dummy = param.dummy_data_param
        for shape in dummy.shape:
            shape.dim[0] = batch
        if len(dummy.num):
            dummy.num[:] = [batch] * len(dummy.num)
