"""Factors: gradients of large fully-connected layers, gathered before they are multiplied out.

Such a gradient is a product, left^T right, of what came into the layer and what came back to it.
For the paper's nets those two matrices hold a tenth of the gradient's numbers or less. So shards
keep them, replicas give them to each other, and each replica multiplies out the rows that it
owns, for the whole batch at once: a shard then costs no pass over these gradients, and there is
nothing to add up. Where a row's bits may depend on what is computed with it, as BLAS's do, rows are
computed in blocks of one grid, whoever owns them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.backend.base import Array
from runtime.core.layer import Layer
from runtime.net import Net
from runtime.parallel.collective import Parcel
from runtime.parallel.shard_plan import ShardPlan

GRID = 128
"""Rows of a gradient that are multiplied out together, where that shows."""
LARGE = 1 << 16
"""Numbers of a gradient that are worth the trouble."""


class Factors:
    """Left and right of one layer's gradient: this replica's passes, and room for everybody's.

    Shapes: left (depth, rows), right (depth, cols), where weights are (rows, cols) and the depth is
    what comes in a pass times the passes.
    """

    def __init__(self, layer: Layer, plan: ShardPlan, rank: int) -> None:
        assert layer.factor_depth is not None
        self.backend = layer.backend
        self._layer = layer
        self.weight = layer.blobs[0]
        self.rows, self.cols = self.weight.shape
        self._passes = [len(plan.run_of(r)) * plan.iter_size for r in range(plan.replicas)]
        self._depth = layer.factor_depth
        self._left, self._right = self._pair(self._passes[rank])
        self._whole = self._pair(sum(self._passes)) if plan.replicas > 1 else None
        self._scale = 1.0 / plan.shards
        self._kept = 0

    def _pair(self, passes: int) -> tuple[Array, Array]:
        depth, backend = self._depth * passes, self.backend
        return (
            backend.memory.empty(depth * self.rows, backend.dtype),
            backend.memory.empty(depth * self.cols, backend.dtype),
        )

    def begin(self) -> None:
        """Forget what is kept, and have the layer's passes from now on."""
        self._kept = 0
        self._layer.keep_factors = self.keep

    def end(self) -> None:
        """Let the layer multiply out by itself again: others may run the net as well."""
        self._layer.keep_factors = None

    def keep(self, left: Array, right: Array) -> None:
        """Keep the factors of one pass; see Layer.keep_factors."""
        for whole, part in ((self._left, left), (self._right, right)):
            flat = self.backend.memory.view(part, 0, (part.size,))
            at = self._kept * part.size
            self.backend.memory.copy(flat, self.backend.memory.view(whole, at, (part.size,)))
        self._kept += 1

    def parcel(self) -> Parcel:
        """What the other replicas need of this one."""
        return [self._left, self._right]

    def sizes(self) -> list[list[int]]:
        """Counts of the arrays in everybody's parcel."""
        depths = [self._depth * passes for passes in self._passes]
        return [[depth * self.rows, depth * self.cols] for depth in depths]

    def multiply(self, parcels: Sequence[Parcel] | None, low: int, high: int) -> None:
        """Write elements low .. high-1 of the mean gradient, with the rest of their rows or blocks.

        `parcels` are all replicas'; None where this is the only one.
        """
        out = self.weight.diff.storage.overwrite()
        if high <= low:
            return
        left, right = (self._left, self._right) if parcels is None else self._gather(parcels)
        depth = left.size // self.rows
        left = self.backend.memory.view(left, 0, (depth, self.rows))
        right = self.backend.memory.view(right, 0, (depth, self.cols))
        for first, last in self._blocks(low // self.cols, -(-high // self.cols)):
            block = np.ascontiguousarray(left[:, first:last])
            to = self.backend.memory.view(out, first * self.cols, (last - first, self.cols))
            self.backend.products.gemm(True, False, self._scale, block, right, 0.0, to)

    def _blocks(self, first: int, last: int) -> list[tuple[int, int]]:
        """The rows of each product that together give rows first .. last-1."""
        if self.backend.rows_stand_alone:
            return [(first, last)]
        starts = range(first // GRID * GRID, last, GRID)
        return [(start, min(start + GRID, self.rows)) for start in starts]

    def _gather(self, parcels: Sequence[Parcel]) -> tuple[Array, Array]:
        """Everybody's passes, in the order of the shards."""
        assert self._whole is not None
        for position, whole in enumerate(self._whole):
            at = 0
            for parcel in parcels:
                part = parcel[position]
                self.backend.memory.copy(part, self.backend.memory.view(whole, at, (part.size,)))
                at += part.size
        return self._whole


def choose_factors(net: Net, plan: ShardPlan, rank: int) -> dict[int, Factors]:
    """The weight blobs, by index, whose gradient is gathered as factors.

    Their factors hold at most half of the gradient's numbers, and the layer does not share them.
    Only in host memory: there a gradient's way through memory takes longer than its arithmetic.
    """
    if plan.shards == 1 or not net.backend.shares_host_memory:
        return {}
    owned = {id(blob): index for index, blob in enumerate(net.params.learnable)}
    users = [id(blob.diff.storage) for layer in net.layers for blob in layer.blobs]
    passes = plan.shards * plan.iter_size
    found = {}
    for layer, needed in zip(net.layers, net.layer_need_backward):
        depth = layer.factor_depth
        if depth is None or not needed:
            continue
        weight = layer.blobs[0]
        rows, cols = weight.shape
        small = 2 * passes * depth * (rows + cols) <= rows * cols
        alone = id(weight) in owned and users.count(id(weight.diff.storage)) == 1
        if small and alone and rows * cols >= LARGE and layer.propagates_to_params(0):
            found[owned[id(weight)]] = Factors(layer, plan, rank)
    return found
