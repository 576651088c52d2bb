"""Layered layout of an acyclic graph, in bands that fit a page.

The coordinate along the flow is `along`, the one across it `across`; both grow from 0. The ranks
of nodes and their coordinates across the flow are linear programmes, solved by SciPy.

Source: Gansner, Koutsofios, North and Vo, A Technique for Drawing Directed Graphs (1993).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from prototxt_gen.errors import UnsupportedError

_Limit = tuple[list[tuple[int, float]], float]
"""Variables with their factors, and the least value of their sum."""

_SWEEPS = 12
RANK_GAP = 0.35
_NODE_GAP = 0.2
_MARGIN = 0.15
_BAND_GAP = 0.35


@dataclass(frozen=True)
class Node:
    """A box, and the length after it in which its lines are straight.

    Units: those of the drawing, such as inches.
    """

    along: float
    across: float
    lead: float = 0.0

    @property
    def length(self) -> float:
        """The length along the flow, with the gap to the next rank."""
        return self.along + self.lead + RANK_GAP


@dataclass(frozen=True)
class Flow:
    """A value that one node writes and others read, by their indices."""

    source: int
    targets: tuple[int, ...]


@dataclass
class Layout:
    """The positions of nodes and lines.

    Shapes: centres (N,2) as (along, across); size (2,).
    """

    centres: list[tuple[float, float]]
    bands: list[int]
    size: tuple[float, float]
    lines: dict[tuple[int, int], list[tuple[float, float]]]
    """For each (flow, target): the ends of the straight parts of its line, without the boxes."""


@dataclass
class _Graph:
    """The nodes of one band: those of the caller, then the points where long lines cross a rank."""

    sizes: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    links: list[tuple[int, int, int]] = field(default_factory=list)
    """Tail, head and weight."""

    def add(self, across: float, rank: int) -> int:
        self.sizes.append(across)
        self.ranks.append(rank)
        return len(self.sizes) - 1


def ranks_of(count: int, flows: Sequence[Flow]) -> list[int]:
    """The rank of each node: sources before targets, with short lines."""
    pairs = sorted({(flow.source, target) for flow in flows for target in flow.targets})
    if not pairs:
        return [0] * count
    cost = np.zeros(count)
    for tail, head in pairs:
        cost[head] += 1
        cost[tail] -= 1
    solution = _minimum(cost, [(_difference(head, tail), 1.0) for tail, head in pairs])
    ranks = [round(float(value)) for value in solution]
    used = sorted(set(ranks))
    return [used.index(rank) for rank in ranks]


def bands_of(lengths: Sequence[float], crossing: Sequence[int], count: int) -> list[int]:
    """The band of each rank: `count` bands of about equal length, cut where few values cross.

    Args:
        lengths: the length of each rank along the flow.
        crossing: how many values go from this rank or an earlier one to a later one.
        count: the intended number of bands; the result may have a few more or fewer.
    """
    ideal = sum(lengths) / count
    if count <= 1:
        return [0] * len(lengths)
    best = [(0.0, 0)]
    for end in range(1, len(lengths) + 1):
        cut = max(crossing[end - 1] - 1, 0) if end < len(lengths) else 0
        options = []
        length = 0.0
        for start in range(end - 1, -1, -1):
            length += lengths[start]
            uneven = 20 * (length / ideal - 1) ** 2
            options.append((best[start][0] + uneven + cut, start))
            if length > 2 * ideal:
                break
        best.append(min(options))
    starts = []
    end = len(lengths)
    while end:
        end = best[end][1]
        starts.append(end)
    return [sum(start <= rank for start in starts) - 1 for rank in range(len(lengths))]


def crossing_counts(ranks: Sequence[int], flows: Sequence[Flow]) -> list[int]:
    """How many values leave each rank, or an earlier one, for a later one."""
    counts = [0] * (max(ranks, default=0) + 1)
    for flow in flows:
        last = max((ranks[target] for target in flow.targets), default=0)
        for rank in range(ranks[flow.source], last):
            counts[rank] += 1
    return counts


def lay_out(
    nodes: Sequence[Node], ranks: Sequence[int], bands: Sequence[int], flows: Sequence[Flow]
) -> Layout:
    """Place nodes whose ranks and bands are given; no flow leaves its band.

    Args:
        nodes: sizes of the boxes.
        ranks: the rank of each node.
        bands: the band of each node.
        flows: lines between nodes of one band.
    """
    layout = Layout([(0.0, 0.0)] * len(nodes), list(bands), (0.0, 0.0), {})
    far, side = 0.0, _MARGIN
    for band in range(max(bands, default=-1) + 1):
        members = [index for index in range(len(nodes)) if bands[index] == band]
        if members:
            length, width = _lay_out_band(layout, nodes, ranks, flows, members, side)
            far, side = max(far, length), side + width + _BAND_GAP
    layout.size = (far + _MARGIN, max(side - _BAND_GAP, 0.0) + _MARGIN)
    return layout


def _lay_out_band(
    layout: Layout,
    nodes: Sequence[Node],
    ranks: Sequence[int],
    flows: Sequence[Flow],
    members: list[int],
    side: float,
) -> tuple[float, float]:
    """Place one band, and return its end along the flow and its width across it."""
    graph, local = _Graph(), {}
    for index in members:
        local[index] = graph.add(nodes[index].across, ranks[index])
    inside = [(i, flow) for i, flow in enumerate(flows) if flow.source in local]
    passed = {i: _add_flow(graph, flow, local, ranks) for i, flow in inside}
    order = _order(graph)
    across = _coordinates(graph, order)
    low = min(a - size / 2 for a, size in zip(across, graph.sizes))
    high = max(a + size / 2 for a, size in zip(across, graph.sizes))
    across = [a - low + side for a in across]
    spans = _rank_spans(nodes, ranks, members)
    for index in members:
        begin, end, _ = spans[ranks[index]]
        layout.centres[index] = ((begin + end) / 2, across[local[index]])
    for i, flow in inside:
        for target in flow.targets:
            points = [(spans[ranks[flow.source]][2], across[local[flow.source]])]
            for point in passed[i][: ranks[target] - ranks[flow.source] - 1]:
                begin, _, end = spans[graph.ranks[point]]
                points += [(begin, across[point]), (end, across[point])]
            points.append((spans[ranks[target]][0], across[local[target]]))
            layout.lines[i, target] = points
    return max(end for _, end, _ in spans.values()), high - low


def _rank_spans(
    nodes: Sequence[Node], ranks: Sequence[int], members: list[int]
) -> dict[int, tuple[float, float, float]]:
    """The coordinates at which each rank begins, its boxes end and its straight lines end."""
    spans: dict[int, tuple[float, float, float]] = {}
    begin = _MARGIN
    for rank in range(min(ranks[i] for i in members), max(ranks[i] for i in members) + 1):
        here = [nodes[i] for i in members if ranks[i] == rank]
        end = begin + max((node.along for node in here), default=0.0)
        lead = end + max((node.lead for node in here), default=0.0)
        spans[rank] = (begin, end, lead)
        begin = lead + RANK_GAP
    return spans


def _add_flow(graph: _Graph, flow: Flow, local: dict[int, int], ranks: Sequence[int]) -> list[int]:
    """Add the links of a value, and return the points of its line, which all readers share."""
    first = ranks[flow.source]
    last = max((ranks[target] for target in flow.targets), default=first)
    points = [graph.add(0.0, rank) for rank in range(first + 1, last)]
    chain = [local[flow.source], *points]
    # The weights of the paper: lines that cross ranks have priority to be straight.
    graph.links += [(a, b, 8 if a in points else 2) for a, b in itertools.pairwise(chain)]
    for target in flow.targets:
        tail = chain[ranks[target] - first - 1]
        graph.links.append((tail, local[target], 2 if tail in points else 1))
    return points


def _order(graph: _Graph) -> list[list[int]]:
    """The nodes of each rank in an order with few crossings, by sweeps of barycentres."""
    first = min(graph.ranks)
    order: list[list[int]] = [[] for _ in range(max(graph.ranks) - first + 1)]
    for node, rank in enumerate(graph.ranks):
        order[rank - first].append(node)
    ahead: list[list[int]] = [[] for _ in graph.ranks]
    behind: list[list[int]] = [[] for _ in graph.ranks]
    for tail, head, _ in graph.links:
        ahead[tail].append(head)
        behind[head].append(tail)
    best, fewest = [list(rank) for rank in order], _crossings(order, ahead)
    for sweep in range(_SWEEPS if fewest else 0):
        _sort_ranks(order[::-1] if sweep % 2 else order, ahead if sweep % 2 else behind)
        crossings = _crossings(order, ahead)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in order], crossings
    return best


def _sort_ranks(order: list[list[int]], neighbours: list[list[int]]) -> None:
    """Sort each rank by the mean places of the nodes that its nodes are linked to."""
    places = {node: float(place) for rank in order for place, node in enumerate(rank)}
    for nodes in order:
        means = dict(places)
        for node in nodes:
            if neighbours[node]:
                linked = [places[other] for other in neighbours[node]]
                means[node] = sum(linked) / len(linked)
        nodes.sort(key=means.__getitem__)
        places.update((node, float(place)) for place, node in enumerate(nodes))


def _crossings(order: list[list[int]], ahead: list[list[int]]) -> int:
    count = 0
    for rank, following in itertools.pairwise(order):
        places = {node: place for place, node in enumerate(following)}
        ends = [sorted(places[head] for head in ahead[node]) for node in rank]
        flat = [(tail, end) for tail, heads in enumerate(ends) for end in heads]
        count += sum(a[0] < b[0] and a[1] > b[1] for a in flat for b in flat)
    return count


def _coordinates(graph: _Graph, order: list[list[int]]) -> list[float]:
    """Coordinates across the flow: boxes apart, lines as straight as possible."""
    count, links = len(graph.sizes), graph.links
    limits = list(_separations(graph, order))
    # A variable for each link is at least the difference between its ends, in both directions.
    for variable, (tail, head, _) in enumerate(links, count):
        limits.append(([*_difference(tail, head), (variable, 1.0)], 0.0))
        limits.append(([*_difference(head, tail), (variable, 1.0)], 0.0))
    weights = [float(weight) for _, _, weight in links]
    solution = _minimum(np.concatenate([np.zeros(count), weights]), limits)
    return [float(value) for value in solution[:count]]


def _separations(graph: _Graph, order: list[list[int]]) -> Iterator[_Limit]:
    for nodes in order:
        for before, after in itertools.pairwise(nodes):
            gap = (graph.sizes[before] + graph.sizes[after]) / 2 + _NODE_GAP
            yield _difference(after, before), gap


def _difference(one: int, other: int) -> list[tuple[int, float]]:
    return [(one, 1.0), (other, -1.0)]


def _minimum(cost: np.ndarray, limits: Sequence[_Limit]) -> np.ndarray:
    """The x >= 0 with the least cost @ x within the limits. Shapes: cost and result (N,)."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    if not limits:
        return np.zeros(len(cost))
    terms = [(row, *term) for row, (sums, _) in enumerate(limits) for term in sums]
    rows, columns, factors = zip(*terms)
    shape = (len(limits), len(cost))
    matrix = coo_array((np.negative(factors), (rows, columns)), shape=shape).tocsr()
    bounds = [-least for _, least in limits]
    solution = linprog(cost, A_ub=matrix, b_ub=bounds, method="highs-ds")
    if solution.x is None:
        raise UnsupportedError(
            f"drawing: no layout; expected an acyclic graph, got: {solution.message}; draw a .dot "
            "file"
        )
    return np.asarray(solution.x)
