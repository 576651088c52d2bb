"""The receptive fields of the numbers of blobs, and their strides.

Paper: section 2.3, where stacks of 3x3 layers have the receptive field of a 5x5 or 7x7 layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from prototxt_gen.integers import ceil_div
from runtime.core.blob import Blob
from runtime.core.description import Places, Window
from runtime.core.layer import Layer
from runtime.net import Net

Pair = tuple[Fraction, Fraction]

_ONE = (Fraction(1), Fraction(1))
_IMAGE_AXES = 4
# The tops cover another part of the plane than the bottoms, with the same stride.
_MOVED = (Places.SHIFTED, Places.CROPPED)


@dataclass(frozen=True)
class Field:
    """The receptive field of each number of a blob.

    Units: pixels of the net's input, height before width. `stride` is None if the blob has no
    plane: each of its numbers then depends on the complete plane of its bottom. A field may be
    larger than the image, because it includes padding.
    """

    size: Pair
    stride: Pair | None = _ONE

    def spread(self, plane: Sequence[int]) -> Field:
        """The field of a number that depends on all numbers of a plane (height, width)."""
        if self.stride is None:
            return self
        size = [s + (n - 1) * step for s, n, step in zip(self.size, plane, self.stride)]
        return Field((size[0], size[1]), None)


def receptive_fields(net: Net) -> list[list[Field | None]]:
    """The fields of the tops of every layer, in the net's order.

    None for labels, losses and weights, and after a layer whose receptive field is unknown.
    Statistics over planes or batches, such as those of MVN, are not included.
    """
    by_blob: dict[int, Field | None] = {}
    tops = []
    for layer, bottom, top in zip(net.layers, net.bottoms, net.tops):
        fields = [by_blob.get(id(blob)) for blob in bottom]
        tops.append([_field(layer, bottom, fields, blob) for blob in top])
        by_blob.update((id(blob), field) for blob, field in zip(top, tops[-1]))
    return tops


def _field(
    layer: Layer, bottom: Sequence[Blob], fields: Sequence[Field | None], top: Blob
) -> Field | None:
    if not bottom:
        return Field(_ONE) if top.num_axes == _IMAGE_AXES else None
    if top.num_axes == 0 or layer.places is Places.UNKNOWN:
        return None
    read = bottom[: layer.value_bottoms]
    seen = [(blob, field) for blob, field in zip(read, fields) if field is not None]
    if not seen:
        return None
    if top.num_axes != _IMAGE_AXES:
        return _widest([f.spread(b.shape[2:]) for b, f in seen])
    field = _widest([f for _, f in seen])
    window = layer.spatial_window()
    if window is not None:
        return _widened(field, window)
    plane = seen[0][0].shape[2:]
    same = layer.places in _MOVED or field.stride is None or top.shape[2:] == plane
    return field if same else None


def _widest(fields: Sequence[Field]) -> Field:
    """The field of a layer with several bottoms: the largest of theirs."""
    strides = [field.stride for field in fields]
    size = (max(f.size[0] for f in fields), max(f.size[1] for f in fields))
    planes = [stride for stride in strides if stride is not None]
    if len(planes) < len(strides):
        return Field(size, None)
    return Field(size, (max(s[0] for s in planes), max(s[1] for s in planes)))


def _widened(field: Field, window: Window) -> Field:
    """The field of a number that depends on a window of numbers of this field."""
    if field.stride is None:
        return field
    extent: Sequence[int] = window.extent
    step = [Fraction(stride) for stride in window.stride]
    if window.transposed:
        # The bottom's numbers on which one number of the top depends; the top has a smaller stride.
        extent = [ceil_div(e, s) for e, s in zip(window.extent, window.stride)]
        step = [1 / s for s in step]
    size = [f + (e - 1) * s for f, e, s in zip(field.size, extent, field.stride)]
    stride = [f * s for f, s in zip(field.stride, step)]
    return Field((size[0], size[1]), (stride[0], stride[1]))
