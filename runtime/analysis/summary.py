"""The table of a net: shapes, parameters, multiply-adds, memory and receptive field of each layer.

The shapes are those of the built net. Paper: Tables 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.analysis.memory_estimate import MemoryEstimate, memory_estimate, storage_bytes
from runtime.analysis.receptive_field import Field, receptive_fields
from runtime.net import Net
from runtime.net.building import PHASE_NAMES
from runtime.net.shape_net import batch_of


@dataclass(frozen=True)
class LayerRow:
    """One layer; `parameters` owned by an earlier layer are in `shared_parameters`.

    Units: `multiply_adds` of one image, forward; `memory` in bytes of the batch, 0 if the layer
    works in place or its tops share the memory of its bottoms.
    """

    name: str
    type: str
    tops: tuple[tuple[str, tuple[int, ...]], ...]
    parameters: int
    shared_parameters: int
    multiply_adds: int
    memory: int
    in_place: bool
    host_only: bool
    """On a GPU, the layer computes on the host."""
    field: Field | None
    """The receptive field of the first top."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "type": self.type,
            "tops": {name: list(shape) for name, shape in self.tops},
            "parameters": self.parameters,
            "shared_parameters": self.shared_parameters,
            "multiply_adds": self.multiply_adds,
            "memory": self.memory,
            "in_place": self.in_place,
            "host_only": self.host_only,
            "receptive_field": _field_dict(self.field),
        }


@dataclass(frozen=True)
class Summary:
    """The layers of a net, without splits, and their totals."""

    name: str
    phase: int
    rows: tuple[LayerRow, ...]
    memory: MemoryEstimate

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image in the convolutions and inner products of a forward pass."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activations_per_image(self) -> float:
        """Bytes of the blobs of one image."""
        return self.memory.activations / self.memory.batch

    def as_dict(self) -> dict[str, Any]:
        return {
            "net": self.name,
            "phase": PHASE_NAMES[self.phase],
            "batch": self.memory.batch,
            "layers": [row.as_dict() for row in self.rows],
            "parameters": self.parameters,
            "multiply_adds_per_image": self.multiply_adds,
            "activation_bytes_per_image": self.activations_per_image,
            "memory_bytes": self.memory.as_dict(),
        }


def summarize(net: Net, solver: Any = None, types: Mapping[str, str] | None = None) -> Summary:
    """The table of a net; with a SolverParameter the memory includes the solver's history.

    `types` gives the types to print of substituted layers, such as the sources of a shape net.
    """
    names = types or {}
    batch = batch_of(net)
    owned = {id(blob) for blob in net.params.learnable}
    seen: set[int] = set()
    rows = []
    for i, (layer, fields) in enumerate(zip(net.layers, receptive_fields(net))):
        memory = 0
        for blob in net.tops[i]:
            if id(blob.data.storage) not in seen:
                seen.add(id(blob.data.storage))
                memory += storage_bytes(blob.data)
        if layer.inserted_by_net:
            continue
        name = str(layer.param.name)
        rows.append(
            LayerRow(
                name=name,
                type=names.get(name, layer.type),
                tops=tuple(zip(map(str, layer.param.top), (top.shape for top in net.tops[i]))),
                parameters=sum(blob.count() for blob in layer.blobs if id(blob) in owned),
                shared_parameters=sum(b.count() for b in layer.blobs if id(b) not in owned),
                multiply_adds=layer.multiply_adds(len(net.bottoms[i])) // batch,
                memory=memory,
                in_place=any(top is bottom for top in net.tops[i] for bottom in net.bottoms[i]),
                host_only=layer.host_only,
                field=fields[0] if fields else None,
            )
        )
    return Summary(net.name, net.phase, tuple(rows), memory_estimate(net, solver=solver))


def _field_dict(field: Field | None) -> dict[str, Any] | None:
    if field is None:
        return None
    stride = field.stride
    return {
        "size": [float(v) if v.denominator > 1 else int(v) for v in field.size],
        "stride": stride and [float(v) if v.denominator > 1 else int(v) for v in stride],
    }
