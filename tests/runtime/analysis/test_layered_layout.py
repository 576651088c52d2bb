"""Layouts of random graphs: what must hold for every one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime.analysis.layered_layout import (
    Flow,
    Layout,
    Node,
    bands_of,
    crossing_counts,
    lay_out,
    ranks_of,
)


def random_graph(seed: int) -> tuple[list[Node], list[Flow]]:
    """Up to 30 boxes of several sizes, in topological order, and values between them."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 31))
    nodes = [Node(*rng.uniform(0.2, 2.0, 2), lead=rng.uniform(0, 0.3)) for _ in range(count)]
    flows = []
    for source in range(count - 1):
        readers = min(int(rng.integers(0, 4)), count - 1 - source)
        targets = rng.choice(np.arange(source + 1, count), readers, replace=False)
        flows += [Flow(source, tuple(int(target) for target in targets))] if readers else []
    return nodes, flows


def overlap(layout: Layout, nodes: list[Node], one: int, other: int) -> bool:
    """Whether two boxes share some area."""
    apart = np.abs(np.subtract(layout.centres[one], layout.centres[other]))
    a, b = nodes[one], nodes[other]
    return bool(apart[0] < (a.along + b.along) / 2 and apart[1] < (a.across + b.across) / 2)


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_apart_and_inside_and_lines_avoid_them(seed: int) -> None:
    nodes, flows = random_graph(seed)
    ranks = ranks_of(len(nodes), flows)
    layout = lay_out(nodes, ranks, [0] * len(nodes), flows)
    for one, other in itertools.combinations(range(len(nodes)), 2):
        assert not overlap(layout, nodes, one, other)
    for node, (along, across) in zip(nodes, layout.centres):
        assert node.along / 2 < along < layout.size[0] - node.along / 2
        assert node.across / 2 < across < layout.size[1] - node.across / 2
    for index, flow in enumerate(flows):
        for target in flow.targets:
            assert ranks[flow.source] < ranks[target]
            points = layout.lines[index, target]
            # From the source on, each pair of points is a straight segment that passes other boxes.
            for (begin, side), (end, other_side) in zip(points[1:-1:2], points[2:-1:2]):
                assert begin <= end and side == other_side
                for node, (along, across) in zip(nodes, layout.centres):
                    if begin <= along <= end:
                        assert abs(across - side) >= node.across / 2


def test_a_chain_is_straight() -> None:
    flows = [Flow(i, (i + 1,)) for i in range(5)]
    layout = lay_out([Node(1, 1 + i % 2) for i in range(6)], range(6), [0] * 6, flows)
    assert len({round(across, 6) for _, across in layout.centres}) == 1
    assert [along for along, _ in layout.centres] == sorted(along for along, _ in layout.centres)


def test_ranks_have_short_lines() -> None:
    """A source without bottoms is next to its reader, not at the beginning."""
    flows = [Flow(0, (1,)), Flow(1, (2,)), Flow(2, (4,)), Flow(3, (4,))]
    assert ranks_of(5, flows) == [0, 1, 2, 2, 3]
    assert ranks_of(3, []) == [0, 0, 0]
    assert ranks_of(0, []) == []


def test_two_crossed_pairs_are_uncrossed() -> None:
    flows = [Flow(0, (3,)), Flow(1, (2,))]
    layout = lay_out([Node(1, 1)] * 4, [0, 0, 1, 1], [0] * 4, flows)
    across = [side for _, side in layout.centres]
    assert across[0] == pytest.approx(across[3]) and across[1] == pytest.approx(across[2])


def test_bands_are_even_and_cut_where_one_value_crosses() -> None:
    assert bands_of([1.0] * 12, [1] * 12, 3) == [0] * 4 + [1] * 4 + [2] * 4
    crossing = [4] * 12
    crossing[4] = crossing[6] = 1
    assert bands_of([1.0] * 12, crossing, 2) in ([0] * 5 + [1] * 7, [0] * 7 + [1] * 5)
    assert bands_of([1.0] * 3, [1] * 3, 1) == [0] * 3
    assert bands_of([5.0, 1, 1, 1, 1, 1], [1] * 6, 2) == [0] + [1] * 5


def test_values_that_cross() -> None:
    assert crossing_counts([0, 1, 2], [Flow(0, (1, 2)), Flow(1, (2,))]) == [1, 2, 0]
    assert crossing_counts([], []) == [0]


def test_bands_lie_side_by_side() -> None:
    flows = [Flow(0, (1,)), Flow(2, (3,))]
    layout = lay_out([Node(1, 1)] * 4, [0, 1, 2, 3], [0, 0, 1, 1], flows)
    assert layout.centres[0][0] == layout.centres[2][0]
    assert layout.centres[2][1] - layout.centres[0][1] > 1
