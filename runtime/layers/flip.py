"""Flip: mirror the planes of a map. Caffe: flip_layer.cpp of face nets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.geometry_limits import image_shape
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.strided import StridedCopy, Strides


@register("Flip")
class FlipLayer(Layer):
    """The columns from right to left, the rows from bottom to top, or both.

    Shapes: bottom and top (N,C,H,W).
    """

    in_place = False
    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Top as bottom."""
        image_shape(bottom[0].shape, self.label)
        param = self.param.flip_param
        sides = ((2, param.flip_height), (3, param.flip_width))
        self.axes = tuple(axis for axis, mirrored in sides if mirrored)
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Mirror."""
        self._mirror(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Mirror back."""
        if propagate_down[0]:
            self._mirror(top[0].diff, bottom[0].diff)

    def _mirror(self, source: SyncedMemory, target: SyncedMemory) -> None:
        shape = source.shape
        places = Strides.of(shape)
        copy = StridedCopy(shape, places.mirrored(shape, self.axes), places)
        copy.run(self.backend, source, target)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        if not self.axes:
            return [step.inputs[0]]
        count = len(self.axes)
        bounds = ([-1] * count, [np.iinfo(np.int64).min] * count, self.axes, [-1] * count)
        names = ("starts", "stops", "axes", "steps")
        constants = [
            step.constant(np.array(values, np.int64), name) for values, name in zip(bounds, names)
        ]
        return [step.op("Slice", step.inputs[0], *constants)]
