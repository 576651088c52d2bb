"""The values by which a layer describes itself to the rest of the program. See Layer."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prototxt_gen.errors import UnsupportedError
from runtime.core.blob import Blob

Pair = tuple[int, int]


class Places(enum.Enum):
    """Where the place (row, column) of a top's number lies in a bottom. Caffe: coord_map.py."""

    UNKNOWN = enum.auto()
    """The layer may read any number of its bottoms."""
    UNDEFINED = enum.auto()
    """No fixed rule; where top and bottom have planes of one size, at the same place."""
    SAME = enum.auto()
    """At the same place; any shape."""
    SHIFTED = enum.auto()
    """At a place that depends on the top or bottom: they are parts of one plane."""
    CROPPED = enum.auto()
    """At the same place plus the offset of a Crop layer."""
    WINDOW = enum.auto()
    """Under the window of the layer."""
    TRANSPOSED_WINDOW = enum.auto()
    """Where the window of a convolution from top to bottom covers the top's place."""


@dataclass(frozen=True)
class Window:
    """A window that moves over the planes of a bottom.

    Units: numbers of the bottom, height before width; `transposed` windows move over the top.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    transposed: bool = False

    @property
    def extent(self) -> Pair:
        """The numbers from the first to the last that a kernel with its dilation covers."""
        down, across = (d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation))
        return down, across


class OnnxStep(Protocol):
    """One layer of a graph that is converted to ONNX: its values by name, blobs for shapes."""

    @property
    def inputs(self) -> list[str]:
        """The values of the bottoms."""

    @property
    def bottom(self) -> Sequence[Blob]: ...

    @property
    def top(self) -> Sequence[Blob]: ...

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output."""

    def ops(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns the outputs."""

    def constant(self, array: Any, name: str) -> str:
        """Add a constant; floats become float32."""

    def scalar(self, value: float, name: str) -> str:
        """Add a constant of one float32 without axes."""

    def weight(self, index: int, shape: Sequence[int] | None = None) -> str:
        """Add a weight blob of the layer as a constant, in another shape if one is given."""

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Add a Reshape to a fixed shape."""

    def affine(self, value: str, scale: float, shift: float) -> str:
        """Add nodes for scale * value + shift; a scale of 1 and a shift of 0 add none."""

    def refuse(self, setting: str) -> UnsupportedError:
        """The error for a setting that has no ONNX form."""
