"""Makes a graph independent of sizes: graphs of one net, converted at several sizes, are merged.

A whole number that is equal in all is a constant. One that differs is computed from the size of a
value in the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import UnsupportedError
from runtime.export.onnx_graph import Array, Graph, import_onnx

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_TO_THE_END = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Trace:
    """A graph with the shapes of its inputs, and of its inputs and outputs."""

    graph: Graph
    inputs: Shapes
    shapes: Shapes


@dataclass(frozen=True)
class _Size:
    """The whole number factor * (size of `axis` of `value`) + shift."""

    value: str
    axis: int
    factor: int
    shift: int


def merge(traces: Sequence[Trace], name: str) -> Graph:
    """A graph for all sizes of the inputs, from the graphs at some sizes; `name` is the net's.

    Raises:
        UnsupportedError: a layer depends on the sizes in another way than by linear functions.
    """
    return _Merging(traces, name).run()


class _Merging:
    """The graphs during the merge."""

    def __init__(self, traces: Sequence[Trace], name: str) -> None:
        self.traces = traces
        self.name = name
        first = traces[0].graph
        self.changed = {
            key
            for key, value in first.constants.items()
            if not all(_equal(value, trace.graph.constants.get(key)) for trace in traces[1:])
        }
        self.shapes = [_value_shapes(trace) for trace in traces] if self.changed else []
        self.merged = Graph(
            constants={k: v for k, v in first.constants.items() if k not in self.changed},
            opset=first.opset,
            any_size=first.any_size,
            taken=set(first.taken),
        )

    def run(self) -> Graph:
        lists = [trace.graph.nodes for trace in self.traces]
        if len({len(nodes) for nodes in lists}) != 1:
            raise self.refuse("the net")
        unread = set(self.changed)
        for node, *others in zip(*lists):
            if any(node != other for other in others):
                raise self.refuse(node.name)
            for position, key in enumerate(node.input):
                if key in self.changed:
                    unread.discard(key)
                    node.input[position] = self.computed(node, position)
            self.merged.nodes.append(node)
        if unread:
            raise self.refuse(min(unread))
        return self.merged

    def computed(self, node: Any, position: int) -> str:
        """The name of a vector that replaces a constant whose values differ."""
        values = [trace.graph.constants[node.input[position]] for trace in self.traces]
        vectors = all(value.dtype == np.int64 and value.ndim == 1 for value in values)
        if position == 0 or not vectors or len({len(value) for value in values}) != 1:
            raise self.refuse(node.name)
        columns = list(zip(*(value.tolist() for value in values)))
        if node.op_type == "Slice":
            numbers = [self.bound(node, axis, column) for axis, column in enumerate(columns)]
        elif node.op_type == "Reshape":
            numbers = self.reshaped(node, columns)
        else:
            numbers = [self.size(node, axis, column) for axis, column in enumerate(columns)]
        return self.vector(node.name, numbers)

    def reshaped(self, node: Any, columns: Sequence[Shape]) -> list[int | _Size]:
        """The shape of a Reshape: 0 copies a size of the input; one -1 is computed by ONNX."""
        places = self.places(node.input[0])
        numbers: list[int | _Size] = []
        open_axes = []
        for axis, column in enumerate(columns):
            if _same(column):
                numbers.append(column[0])
            elif axis < len(places) and places[axis] == column:
                numbers.append(0)
            else:
                numbers.append(-1)
                open_axes.append(axis)
        for axis in reversed(open_axes):
            if numbers.count(-1) == 1:
                break
            with contextlib.suppress(UnsupportedError):
                numbers[axis] = self.size(node, axis, columns[axis])
        if numbers.count(-1) > 1:
            raise self.refuse(node.name)
        return numbers

    def bound(self, node: Any, index: int, column: Shape) -> int | _Size:
        """A bound of a Slice: one that moves with the end of the axis is counted from the end."""
        if _same(column):
            return column[0]
        axes = node.input[3] if len(node.input) > 3 else ""
        axis = int(self.traces[0].graph.constants[axes][index]) if axes else index
        distances = tuple(a - x for a, x in zip(column, self.places(node.input[0])[axis]))
        if _same(distances) and distances[0] <= 0:
            return distances[0] or _TO_THE_END
        return self.size(node, axis, column)

    def size(self, node: Any, axis: int, column: Shape) -> int | _Size:
        """A whole number as a linear function of a size of the input, or of the graph's inputs."""
        if _same(column):
            return column[0]
        for value, place, sizes in self.candidates(node.input[0], axis):
            factor, rest = divmod(column[1] - column[0], sizes[1] - sizes[0])
            shift = column[0] - factor * sizes[0]
            fits = all(factor * x + shift == a for x, a in zip(sizes, column))
            if rest == 0 and factor > 0 and fits:
                return _Size(value, place, factor, shift)
        raise self.refuse(node.name)

    def candidates(self, value: str, axis: int) -> Iterator[tuple[str, int, Shape]]:
        """The axes of values whose sizes differ, and the sizes; the same axis first."""
        values = list(dict.fromkeys((value, *self.traces[0].inputs)))
        places = {name: self.places(name) for name in values}
        for same_axis in (True, False):
            for name in values:
                for place, sizes in enumerate(places[name]):
                    if sizes[0] != sizes[1] and (place == axis) == same_axis:
                        yield name, place, sizes

    def places(self, value: str) -> list[Shape]:
        """The sizes of each axis of a value, in the order of the traces."""
        return list(zip(*(shapes.get(value, ()) for shapes in self.shapes)))

    def vector(self, stem: str, numbers: Iterable[int | _Size]) -> str:
        """Add the nodes of a vector; returns its name."""
        graph, parts, fixed = self.merged, [], []
        for number in [*numbers, None]:
            if isinstance(number, int):
                fixed.append(number)
                continue
            if fixed:
                parts.append(graph.constant(np.array(fixed, np.int64), f"{stem}/sizes"))
                fixed = []
            if number is not None:
                parts.append(self.element(stem, number))
        if len(parts) == 1:
            return parts[0]
        return graph.node("Concat", parts, f"{stem}/sizes", axis=0)[0]

    def element(self, stem: str, size: _Size) -> str:
        graph = self.merged
        shape = graph.node("Shape", [size.value], stem)[0]
        index = graph.constant(np.array([size.axis], np.int64), f"{stem}/axis")
        result = graph.node("Gather", [shape, index], stem, axis=0)[0]
        for op, number, neutral in (("Mul", size.factor, 1), ("Add", size.shift, 0)):
            if number != neutral:
                constant = graph.constant(np.array([number], np.int64), f"{stem}/{op}")
                result = graph.node(op, [result, constant], stem)[0]
        return result

    def refuse(self, place: str) -> UnsupportedError:
        layer = place.rpartition("/")[0] or place
        return UnsupportedError(
            f"net '{self.name}': '{layer}' depends on the sizes of the inputs in a way that has no "
            "ONNX form here; expected a net without such a layer; export it for the sizes of the "
            "prototxt, with --batch fixed"
        )


def _same(numbers: Sequence[int]) -> bool:
    return len(set(numbers)) == 1


def _equal(first: Array, second: Array | None) -> bool:
    return second is not None and first.dtype == second.dtype and np.array_equal(first, second)


def _value_shapes(trace: Trace) -> dict[str, Shape]:
    """The shape of each value of a graph, by ONNX's own inference; weights count as inputs."""
    onnx = import_onnx()
    helper, tensors = onnx.helper, onnx.TensorProto
    graph = trace.graph
    numbers = {name: v for name, v in graph.constants.items() if v.dtype == np.int64}
    weights = {name: v.shape for name, v in graph.constants.items() if name not in numbers}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "sizes",
            [
                helper.make_tensor_value_info(name, tensors.FLOAT, shape)
                for name, shape in {**trace.inputs, **weights}.items()
            ],
            [],
            [onnx.numpy_helper.from_array(value, name) for name, value in numbers.items()],
        ),
        opset_imports=[helper.make_opsetid("", graph.opset)],
    )
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {name: tuple(shape) for name, shape in trace.inputs.items()}
    for info in inferred.graph.value_info:
        shapes[info.name] = tuple(dim.dim_value for dim in info.type.tensor_type.shape.dim)
    return shapes


def free_axes(shapes: Sequence[Shapes], names: Mapping[Shape, str], value: str) -> list[int | str]:
    """The declared shape of a value: numbers, and names for the sizes that are free."""
    columns = zip(*(of_trace[value] for of_trace in shapes))
    return [
        column[0] if _same(column) else names.get(column, f"{value}_{axis}")
        for axis, column in enumerate(columns)
    ]
