"""Factors: weight gradients of large fully-connected layers as products of two small matrices.

Such a gradient is the product left^T right of the gradient of the layer's output and of its input.
For the paper's nets the two matrices have at most a tenth of the gradient's values. So shards store
the matrices, replicas exchange them, and each replica computes the rows that it owns for the whole
batch in one product. Shards then need no pass over these gradients and no sum of them. If the bits
of a row depend on the other rows of a product, as with BLAS, rows are computed in the blocks of a
fixed grid, so that they do not depend on the owner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prototxt_gen.integers import ceil_div
from runtime.backend.base import Array
from runtime.core.layer import Layer
from runtime.net import Net
from runtime.parallel.collective import Message
from runtime.parallel.shard_plan import ShardPlan

GRID = 128
"""Rows of a product, if the bits of a row depend on the other rows."""
LARGE = 1 << 16
"""Values of the smallest gradient that is computed from factors."""


class Factors:
    """The left and right matrix of one layer's gradient: this replica's part and the whole.

    Shapes: left (depth, rows), right (depth, cols), weights (rows, cols); the depth is the layer's
    factor_depth times the number of passes.
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
        """Start an iteration: the layer's backward passes store their factors here."""
        self._kept = 0
        self._layer.keep_factors = self.keep

    def end(self) -> None:
        """End an iteration: the layer computes its gradient itself again."""
        self._layer.keep_factors = None

    def keep(self, left: Array, right: Array) -> None:
        """Store the factors of one pass. See Layer.keep_factors.

        Shapes: left (factor_depth, rows), right (factor_depth, cols).
        """
        for whole, part in ((self._left, left), (self._right, right)):
            flat = self.backend.memory.view(part, 0, (part.size,))
            offset = self._kept * part.size
            self.backend.memory.copy(flat, self.backend.memory.view(whole, offset, (part.size,)))
        self._kept += 1

    def message(self) -> Message:
        """This replica's part of the two matrices."""
        return [self._left, self._right]

    def sizes(self) -> list[list[int]]:
        """The counts of the arrays in the message of each replica."""
        depths = [self._depth * passes for passes in self._passes]
        return [[depth * self.rows, depth * self.cols] for depth in depths]

    def multiply(self, messages: Sequence[Message] | None, low: int, high: int) -> None:
        """Write elements low .. high-1 of the mean gradient, with the rest of their rows or blocks.

        `messages` come from all replicas; None if there is only one.
        """
        out = self.weight.diff.storage.overwrite()
        if high <= low:
            return
        left, right = (self._left, self._right) if messages is None else self._gather(messages)
        depth = left.size // self.rows
        left = self.backend.memory.view(left, 0, (depth, self.rows))
        right = self.backend.memory.view(right, 0, (depth, self.cols))
        for first, last in self._blocks(low // self.cols, ceil_div(high, self.cols)):
            block = np.ascontiguousarray(left[:, first:last])
            to = self.backend.memory.view(out, first * self.cols, (last - first, self.cols))
            self.backend.products.gemm(True, False, self._scale, block, right, 0.0, to)

    def _blocks(self, first: int, last: int) -> list[tuple[int, int]]:
        """The ranges of rows of the products that give rows first .. last-1."""
        if self.backend.rows_independent:
            return [(first, last)]
        starts = range(first // GRID * GRID, last, GRID)
        return [(start, min(start + GRID, self.rows)) for start in starts]

    def _gather(self, messages: Sequence[Message]) -> tuple[Array, Array]:
        """The matrices of all passes, in the order of the shards."""
        assert self._whole is not None
        for position, whole in enumerate(self._whole):
            offset = 0
            for message in messages:
                part = message[position]
                target = self.backend.memory.view(whole, offset, (part.size,))
                self.backend.memory.copy(part, target)
                offset += part.size
        return self._whole


def choose_factors(net: Net, plan: ShardPlan, rank: int) -> dict[int, Factors]:
    """The weight blobs, by index, whose gradients are computed from factors.

    Their factors have at most half as many values as the gradient, and no other layer shares them.
    Only for backends in host memory, where a pass over a gradient costs more than its arithmetic.
    """
    if plan.shards == 1 or not net.backend.shares_host_memory:
        return {}
    owned = {id(blob): index for index, blob in enumerate(net.params.learnable)}
    users = [id(blob.diff.storage) for layer in net.layers for blob in layer.blobs]
    passes = plan.shards * plan.iter_size
    chosen = {}
    for layer, needed in zip(net.layers, net.layer_need_backward):
        depth = layer.factor_depth
        if depth is None or not needed:
            continue
        weight = layer.blobs[0]
        rows, cols = weight.shape
        small = 2 * passes * depth * (rows + cols) <= rows * cols
        alone = id(weight) in owned and users.count(id(weight.diff.storage)) == 1
        if small and alone and rows * cols >= LARGE and layer.propagates_to_params(0):
            chosen[owned[id(weight)]] = Factors(layer, plan, rank)
    return chosen
