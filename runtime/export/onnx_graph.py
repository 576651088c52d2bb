"""An ONNX graph under construction, and the conversion of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import UnsupportedError
from runtime.core.blob import Blob
from runtime.core.layer import Layer

OPSET = 13
"""The default operator set: supported by all readers in use, with a Softmax along one axis."""
OPSETS = range(OPSET, 22)
"""The operator sets that can be written."""
_AXES_AS_INPUT = 18
"""From this operator set on, the axes of a reduction are an input instead of an attribute."""

Array = npt.NDArray[Any]


def import_onnx() -> ModuleType:
    """Import the package onnx.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        import onnx
    except ImportError as cause:
        raise UnsupportedError(
            "export to ONNX: the package onnx is missing; expected the extra [onnx]; "
            "install it with `pip install 'verydeep[onnx]'`"
        ) from cause
    module: ModuleType = onnx
    return module


@dataclass
class Graph:
    """Nodes and constants, in order. Values are identified by name."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    opset: int = OPSET
    any_size: bool = False
    """Whether the height and width of the inputs may differ from those of the net."""
    taken: set[str] = field(default_factory=set)

    def fresh(self, stem: str) -> str:
        """A name that is not used yet."""
        name, number = stem, 1
        while name in self.taken:
            number += 1
            name = f"{stem}:{number}"
        self.taken.add(name)
        return name

    def constant(self, array: Any, stem: str) -> str:
        """Add an array of any shape as a constant, floats as float32; returns its name."""
        values = np.asarray(array)
        if values.dtype.kind == "f":
            values = values.astype(np.float32)
        name = self.fresh(stem)
        self.constants[name] = values
        return name

    def node(
        self, op: str, inputs: Sequence[str], stem: str, outputs: int = 1, **attributes: Any
    ) -> list[str]:
        """Add a node, and return its outputs."""
        names = [self.fresh(f"{stem}/{op}") for _ in range(outputs)]
        helper = import_onnx().helper
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], **attributes))
        return names


@dataclass(frozen=True)
class Step:
    """The conversion of one layer; see runtime.core.description.OnnxStep."""

    graph: Graph
    layer: Layer
    inputs: list[str]
    bottom: Sequence[Blob]
    top: Sequence[Blob]

    @property
    def name(self) -> str:
        return str(self.layer.param.name)

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return that."""
        return self.graph.node(op, inputs, self.name, **attributes)[0]

    def ops(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs, and return them."""
        return self.graph.node(op, inputs, self.name, outputs, **attributes)

    @property
    def any_size(self) -> bool:
        """Whether the height and width of the inputs may differ from those of the bottoms."""
        return self.graph.any_size

    def reduce(self, op: str, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """Add a reduction over axes."""
        attributes: dict[str, Any] = {"keepdims": int(keepdims)}
        if op == "ReduceSum" or self.graph.opset >= _AXES_AS_INPUT:
            constant = self.constant(np.array(axes, np.int64), "axes")
            return self.op(op, value, constant, **attributes)
        return self.op(op, value, axes=list(axes), **attributes)

    def constant(self, array: Any, name: str) -> str:
        return self.graph.constant(array, f"{self.name}/{name}")

    def scalar(self, value: float, name: str) -> str:
        return self.constant(np.float32(value), name)

    def weight(self, index: int, shape: Sequence[int] | None = None) -> str:
        """Add a weight blob of the layer, in `shape` if it is given; returns its name."""
        values = self.layer.blobs[index].data.host()
        name = ("weight", "bias")[index] if index < 2 else str(index)
        return self.constant(values if shape is None else values.reshape(shape), name)

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        return self.op("Reshape", value, self.constant(np.array(shape, np.int64), "shape"))

    def affine(self, value: str, scale: float, shift: float) -> str:
        """scale * value + shift, without a factor of 1 and a term of 0."""
        if scale != 1:
            value = self.op("Mul", value, self.scalar(scale, "scale"))
        if shift != 0:
            value = self.op("Add", value, self.scalar(shift, "shift"))
        return value

    def refuse(self, setting: str) -> UnsupportedError:
        """The error for a setting that cannot be exported to ONNX."""
        return UnsupportedError(
            f"{self.layer.label}: {setting} has no ONNX form here; expected a net for inference; "
            "change the layer, or export the weights alone with --to npz"
        )
