"""The binary tree of the sum over shards, which fixes the order of additions.

The result of a floating-point sum depends on the order. A node (low, high) is the sum of its two
halves, and a leaf is one shard, on any number of replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

Node = tuple[int, int]
"""Shards low .. high-1."""

Value = TypeVar("Value")


def halves(node: Node) -> tuple[Node, Node]:
    """The two nodes whose sum is this node."""
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
    """The number of sums that `shard` completes if shards low, low+1, ... are computed in order.

    Each sum replaces the newest two values of a stack.
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
