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
    """How positions (row, column) in a top map to a bottom. Caffe: coord_map.py."""

    UNKNOWN = enum.auto()
    """A top element may depend on any element of the bottoms."""
    UNDEFINED = enum.auto()
    """No fixed rule; the same position if the planes of top and bottom have the same size."""
    SAME = enum.auto()
    """The same position, for any shape."""
    SHIFTED = enum.auto()
    """A position that depends on the top or bottom: they are parts of one plane."""
    CROPPED = enum.auto()
    """The same position plus the offset of a Crop layer."""
    WINDOW = enum.auto()
    """The window of the layer."""
    TRANSPOSED_WINDOW = enum.auto()
    """The positions whose window, in the convolution from top to bottom, has the top position."""


@dataclass(frozen=True)
class Window:
    """A window that moves over the planes of a bottom.

    Units: bottom elements, height before width; with `transposed`, elements of the top.
    """

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    transposed: bool = False

    @property
    def extent(self) -> Pair:
        """The height and width that the dilated kernel covers. Units: elements."""
        down, across = (d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation))
        return down, across


@dataclass(frozen=True)
class PlainLayer:
    """A LayerParameter of BVLC Caffe and the arrays of its weight blobs."""

    param: Any
    weights: Sequence[Any] = ()


class OnnxStep(Protocol):
    """A layer during conversion to ONNX: names of its values, blobs for their shapes."""

    @property
    def inputs(self) -> list[str]:
        """The names of the values of the bottoms."""

    @property
    def bottom(self) -> Sequence[Blob]: ...

    @property
    def top(self) -> Sequence[Blob]: ...

    @property
    def any_size(self) -> bool:
        """Whether the height and width of the inputs may differ from those of the bottoms."""

    def reduce(self, op: str, value: str, axes: Sequence[int], keepdims: bool = True) -> str:
        """Add a reduction over axes; returns the name of the output."""

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the name of the output."""

    def ops(self, op: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs; returns their names."""

    def constant(self, array: Any, name: str) -> str:
        """Add a constant of any shape; floats become float32. Returns its name."""

    def scalar(self, value: float, name: str) -> str:
        """Add a float32 constant of shape (). Returns its name."""

    def weight(self, index: int, shape: Sequence[int] | None = None) -> str:
        """Add a weight blob of the layer as a constant, reshaped if `shape` is given."""

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        """Add a Reshape to a fixed shape."""

    def affine(self, value: str, scale: float, shift: float) -> str:
        """Add nodes for scale * value + shift; a scale of 1 and a shift of 0 add none."""

    def refuse(self, setting: str) -> UnsupportedError:
        """Create the error for a setting that has no ONNX form."""
