"""Tile: repeat a blob along an axis. Caffe: tile_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.description import OnnxStep
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register


@register("Tile")
class TileLayer(Layer):
    """Concatenates `tiles` copies of the bottom along `axis`."""

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
        x = bottom[0].data.host()
        tiles = int(self.param.tile_param.tiles)
        top[0].data.mutable_host()[...] = np.concatenate([x] * tiles, axis=self.axis)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients of the copies."""
        if propagate_down[0]:
            tiles, shape = int(self.param.tile_param.tiles), bottom[0].shape
            axis = self.axis
            dy = top[0].diff.host().reshape((*shape[:axis], tiles, *shape[axis:]))
            bottom[0].diff.mutable_host()[...] = dy.sum(axis=axis)

    def to_onnx(self, step: OnnxStep) -> list[str]:
        repeats = np.ones(step.bottom[0].num_axes, np.int64)
        repeats[self.axis] = self.param.tile_param.tiles
        return [step.op("Tile", step.inputs[0], step.constant(repeats, "repeats"))]
