"""SPP: spatial pyramid pooling. Caffe: spp_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError, UnsupportedError
from prototxt_gen.geometry import PoolGeometry
from prototxt_gen.integers import ceil_div
from runtime.core.layer import Blobs, Layer
from runtime.core.layer_registry import register
from runtime.core.synced_memory import SyncedMemory


@register("SPP")
class SPPLayer(Layer):
    """Pools into 2^l x 2^l bins for each level l; the results are concatenated.

    Shapes: bottom (N,C,H,W); top (N, C * (4^levels - 1) / 3), or (N,C,1,1) for one level.
    """

    host_only = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read height and method.

        Raises:
            ProtoError: the height is below 1.
            UnsupportedError: the method is STOCHASTIC.
        """
        param = self.param.spp_param
        if param.pyramid_height < 1:
            raise ProtoError(
                f"{self.label}: pyramid_height is {param.pyramid_height}; expected at least 1"
            )
        if param.pool == proto.SPPParameter.STOCHASTIC:
            raise UnsupportedError(f"{self.label}: STOCHASTIC pooling; expected MAX or AVE")
        self.is_max = param.pool == proto.SPPParameter.MAX

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the geometry of each level and shape the top.

        Raises:
            ShapeError: the bottom is not 4-D, or too small for the bins.
        """
        if bottom[0].num_axes != 4:
            raise ShapeError(
                f"{self.label}: expected a 4-D bottom (N,C,H,W), got shape {bottom[0].shape}"
            )
        n, c, h, w = bottom[0].shape
        self.levels = [
            self._level(n, c, h, w, 1 << i) for i in range(self.param.spp_param.pyramid_height)
        ]
        self.masks = [SyncedMemory(self.backend, np.dtype(np.int32)) for _ in self.levels]
        for mask, geom in zip(self.masks, self.levels):
            mask.reshape(geom.out_shape)
        if len(self.levels) == 1:
            top[0].reshape(self.levels[0].out_shape)
        else:
            top[0].reshape((n, sum(c * geom.p * geom.q for geom in self.levels)))

    def _level(self, n: int, c: int, h: int, w: int, bins: int) -> PoolGeometry:
        kernel = (ceil_div(h, bins), ceil_div(w, bins))
        pad = ((kernel[0] * bins - h + 1) // 2, (kernel[1] * bins - w + 1) // 2)
        if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
            raise ShapeError(
                f"{self.label}: {h}x{w} is too small for {bins}x{bins} bins; "
                "use a smaller pyramid_height"
            )
        return PoolGeometry(n, c, h, w, kernel, kernel, pad)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Pool level by level."""
        x, y, width = bottom[0].data.dev(), top[0].data.mutable_dev(), top[0].count(1)
        offset = 0
        for geom, mask in zip(self.levels, self.masks):
            pooled = SyncedMemory(self.backend)
            pooled.reshape(geom.out_shape)
            if self.is_max:
                self.backend.pool.max_forward(geom, x, pooled.mutable_dev(), mask.mutable_dev())
            else:
                self.backend.pool.ave_forward(geom, x, pooled.mutable_dev())
            cols = geom.c * geom.p * geom.q
            self.backend.memory.copy_2d(pooled.dev(), y, geom.n, cols, (0, cols), (offset, width))
            offset += cols

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Add the gradients of the levels."""
        if not propagate_down[0]:
            return
        dy, dx, width = top[0].diff.dev(), bottom[0].diff.mutable_dev(), top[0].count(1)
        self.backend.memory.fill(dx, 0.0)
        offset = 0
        for geom, mask in zip(self.levels, self.masks):
            part, spread = SyncedMemory(self.backend), SyncedMemory(self.backend)
            part.reshape(geom.out_shape)
            spread.reshape(geom.in_shape)
            cols = geom.c * geom.p * geom.q
            self.backend.memory.copy_2d(
                dy, part.mutable_dev(), geom.n, cols, (offset, width), (0, cols)
            )
            if self.is_max:
                self.backend.pool.max_backward(geom, part.dev(), mask.dev(), spread.mutable_dev())
            else:
                self.backend.pool.ave_backward(geom, part.dev(), spread.mutable_dev())
            self.backend.vectors.axpy(1.0, spread.dev(), dx)
            offset += cols
