"""CropCenter: the middle of a blob. Caffe: crop_center_layer.cpp of face nets."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.window import WindowLayer


@register("CropCenter")
class CropCenterLayer(WindowLayer):
    """The centre of a blob, without `crop_size` elements at both ends of each axis."""

    in_place = False
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the window and shape the top.

        Raises:
            ProtoError: crop_size does not suit the shape.
        """
        crop, shape = [int(c) for c in self.param.crop_center_param.crop_size], bottom[0].shape
        if len(crop) != len(shape) or any(2 * c >= size for c, size in zip(crop, shape)):
            raise ProtoError(
                f"{self.label}: crop_size {crop} does not suit shape {shape}; expected one number "
                "for each axis, below half of its size; correct crop_center_param"
            )
        self.window = tuple(slice(c, size - c) for c, size in zip(crop, shape))
        top[0].reshape([size - 2 * c for c, size in zip(crop, shape)])

    def to_onnx(self, step: OnnxStep) -> list[str]:
        starts = [part.start for part in self.window]
        stops = [part.stop for part in self.window]
        bounds = [
            step.constant(np.array(values, np.int64), name)
            for values, name in ((starts, "starts"), (stops, "stops"))
        ]
        return [step.op("Slice", step.inputs[0], *bounds)]
