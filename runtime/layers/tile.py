"""Tile: repeat a blob along an axis. Caffe: tile_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.layers.strided import StridedCopy, Strides


@register("Tile")
class TileLayer(Layer):
    """Concatenates `tiles` copies of the bottom along `axis`."""

    only_ops = True

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Shape the top.

        Raises:
            ProtoError: tiles is below 1.
        """
        param = self.param.tile_param
        if param.tiles < 1:
            raise ProtoError(f"{self.label}: tiles is {param.tiles}; expected at least 1")
        self.axis = axis = bottom[0].canonical_axis(param.axis, self.label)
        shape = list(bottom[0].shape)
        shape[axis] *= int(param.tiles)
        top[0].reshape(shape)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the bottom `tiles` times."""
        tiles, axis, shape = int(self.param.tile_param.tiles), self.axis, bottom[0].shape
        repeated = (*shape[:axis], tiles, *shape[axis:])
        source = Strides.of(shape).inserted(axis, 0)
        copy = StridedCopy(repeated, source, Strides.of(repeated))
        copy.run(self.backend, bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients of the copies."""
        if propagate_down[0]:
            tiles, axis, shape = int(self.param.tile_param.tiles), self.axis, bottom[0].shape
            steps = list(Strides.of((*shape[:axis], tiles, *shape[axis:])).steps)
            repeat = steps.pop(axis)
            source = Strides(0, tuple(steps))
            copy = StridedCopy(shape, source, Strides.of(shape), tiles, repeat)
            copy.run(self.backend, top[0].diff, bottom[0].diff)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        repeats = np.ones(step.bottom[0].num_axes, np.int64)
        repeats[self.axis] = self.param.tile_param.tiles
        return [step.op("Tile", step.inputs[0], step.constant(repeats, "repeats"))]
