"""The order of the sum over shards."""

from __future__ import annotations

import pytest

from runtime.parallel.tree import Node, cover, evaluate, halves, merges_after

SHARDS = [1, 2, 3, 4, 6, 8, 12, 16]


def written(node: Node, parts: dict[Node, str]) -> str:
    return evaluate(node, parts, lambda left, right: f"({left}+{right})")


def leaves(low: int, high: int) -> dict[Node, str]:
    return {(shard, shard + 1): str(shard) for shard in range(low, high)}


def test_four_shards_are_added_in_pairs() -> None:
    assert written((0, 4), leaves(0, 4)) == "((0+1)+(2+3))"
    assert written((0, 3), leaves(0, 3)) == "(0+(1+2))"
    assert halves((0, 5)) == ((0, 2), (2, 5))


def test_a_cover_is_made_of_whole_nodes() -> None:
    assert cover((0, 8), 0, 8) == [(0, 8)]
    assert cover((0, 8), 4, 8) == [(4, 8)]
    assert cover((0, 6), 2, 4) == [(2, 3), (3, 4)]
    assert cover((0, 6), 6, 8) == []


@pytest.mark.parametrize("shards", SHARDS)
def test_any_division_gives_the_same_sum(shards: int) -> None:
    whole = written((0, shards), leaves(0, shards))
    for replicas in range(1, shards + 1):
        if shards % replicas:
            continue
        each = shards // replicas
        parts = {}
        for low in range(0, shards, each):
            for node in cover((0, shards), low, low + each):
                parts[node] = written(node, leaves(*node))
        assert written((0, shards), parts) == whole


@pytest.mark.parametrize("shards", SHARDS)
def test_a_stack_of_finished_sums_ends_as_the_cover(shards: int) -> None:
    for each in (n for n in range(1, shards + 1) if shards % n == 0):
        for low in range(0, shards, each):
            stack: list[Node] = []
            for shard in range(low, low + each):
                node = (shard, shard + 1)
                for _ in range(merges_after(shards, shard, low)):
                    left = stack.pop()
                    assert left[1] == node[0]
                    node = (left[0], node[1])
                stack.append(node)
            assert stack == cover((0, shards), low, low + each)
