"""Crop: a part of a blob, with the size of another blob. Caffe: crop_layer.cpp."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.description import OnnxStep, Places
from runtime.core.layer import Blobs, exactly
from runtime.core.layer_registry import register
from runtime.layers.window import WindowLayer


@register("Crop")
class CropLayer(WindowLayer):
    """From `axis` on, the top has the sizes of the second bottom, at the given offsets."""

    places = Places.CROPPED
    only_ops = True
    value_bottoms = 1

    num_bottom = exactly(2)

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Only the first: of the reference, only the shape is used."""
        return bottom_index == 0

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Determine the window.

        Raises:
            ProtoError: the number of offsets is wrong.
            ShapeError: the window exceeds the first bottom, or the reference has too few axes.
        """
        axis = bottom[0].canonical_axis(self.param.crop_param.axis, self.label)
        offsets = [int(o) for o in self.param.crop_param.offset]
        cropped = bottom[0].num_axes - axis
        if len(offsets) > 1 and len(offsets) != cropped:
            raise ProtoError(
                f"{self.label}: expected no offset, one, or {cropped} (one for each axis from "
                f"{axis} on), got {len(offsets)}"
            )
        if bottom[1].num_axes < bottom[0].num_axes:
            raise ShapeError(
                f"{self.label}: expected a reference with as many axes as the input, got "
                f"{bottom[1].shape} for {bottom[0].shape}"
            )
        window, shape = [], []
        for i, size in enumerate(bottom[0].shape):
            start, length = 0, size
            if i >= axis:
                start = (offsets[i - axis] if len(offsets) > 1 else offsets[0]) if offsets else 0
                length = bottom[1].shape[i]
            if start + length > size:
                raise ShapeError(
                    f"{self.label}: axis {i}: offset {start} + size {length} exceeds {size}; "
                    "use a smaller offset or reference"
                )
            window.append(slice(start, start + length))
            shape.append(length)
        self.window = tuple(window)
        top[0].reshape(shape)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        param, source = self.param.crop_param, step.bottom[0]
        first = source.canonical_axis(param.axis)
        axes = range(first, source.num_axes)
        bounds = (
            ([self.window[axis].start for axis in axes], "starts"),
            ([self.window[axis].stop for axis in axes], "stops"),
            (list(axes), "axes"),
        )
        constants = [step.constant(np.array(values, np.int64), name) for values, name in bounds]
        return [step.op("Slice", step.inputs[0], *constants)]
