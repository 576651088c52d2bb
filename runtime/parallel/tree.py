"""The binary tree in which shards' gradients are added: the same whoever computes them.

Floating-point sums depend on their order, so the order is fixed: a node (low, high) is the sum of
its two halves, and a leaf is one shard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

Node = tuple[int, int]
"""Shards low .. high-1."""

Value = TypeVar("Value")


def halves(node: Node) -> tuple[Node, Node]:
    """The two nodes that a node is the sum of."""
    low, high = node
    middle = (low + high) // 2
    return (low, middle), (middle, high)


def cover(node: Node, low: int, high: int) -> list[Node]:
    """The largest nodes below `node` that lie in low .. high-1, from left to right."""
    if high <= node[0] or node[1] <= low:
        return []
    if low <= node[0] and node[1] <= high:
        return [node]
    left, right = halves(node)
    return cover(left, low, high) + cover(right, low, high)


def merges_after(shards: int, shard: int, low: int) -> int:
    """How many sums are complete once `shard` is, for one who computes low, low+1, ... in order.

    Each takes the newest two values of a stack.
    """
    node, path = (0, shards), []
    while node[1] - node[0] > 1:
        left, right = halves(node)
        path.append((node, shard >= right[0]))
        node = right if shard >= right[0] else left
    count = 0
    for parent, is_right in reversed(path):
        if not is_right or parent[0] < low:
            break
        count += 1
    return count


def evaluate(
    node: Node, parts: Mapping[Node, Value], add: Callable[[Value, Value], Value]
) -> Value:
    """The value of a node, from the values of nodes that cover it."""
    if node in parts:
        return parts[node]
    left, right = halves(node)
    return add(evaluate(left, parts, add), evaluate(right, parts, add))
