"""Coordinate maps between tops, and the crop that aligns them. Caffe: coord_map.py.

A map is (axis, scale, shift). Coordinate i of one top is coordinate `scale * i + shift` of the
other, with a number for each spatial axis. The spatial axes are those after `axis`; None fits any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from prototxt_gen.netspec import Function, Top, layers
from runtime.core.description import Places
from runtime.layers.factory import class_of, layer_type_list
from runtime.pycaffe.errors import (
    AlignmentError,
    AxisMismatchException,
    CallError,
    UndefinedMapException,
)

__all__ = [
    "AxisMismatchException",
    "UndefinedMapException",
    "compose",
    "conv_params",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "crop_params",
    "inverse",
]

Map: TypeAlias = "tuple[int | None, Any, Any]"

_TWO_SIDED = ("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w")
_IDENTITY: Map = (None, 1, 0)


def conv_params(fn: Function) -> tuple[int, Any, Any, Any]:
    """Axis, stride, extent of the kernel with its dilation, and padding of a window layer.

    Raises:
        AlignmentError: the layer has no kernel_size, or the fields of separate sides.
    """
    param = fn.params.get("convolution_param", fn.params.get("pooling_param", fn.params))
    legacy = [name for name in _TWO_SIDED if name in param]
    if legacy or "kernel_size" not in param:
        raise AlignmentError(
            f"coord_map: a {fn.type_name} with {', '.join(legacy) or 'no kernel_size'}; expected "
            "kernel_size, stride and pad; cropping does not support the legacy _h and _w fields"
        )
    kernel = np.array(param["kernel_size"], ndmin=1)
    dilation = np.array(param.get("dilation", 1), ndmin=1)
    stride, pad = (np.array(param.get(*item), ndmin=1) for item in (("stride", 1), ("pad", 0)))
    return param.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, Any]:
    """Axis and offsets of a Crop layer."""
    param = fn.params.get("crop_param", fn.params)
    return param.get("axis", 2), np.array(param.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> Map:
    """The map of one layer, from its input to its output.

    Raises:
        UndefinedMapException: the layer has no coordinate map, such as InnerProduct.
        AlignmentError: see conv_params.
    """
    places = class_of(fn.type_name).places
    if places is Places.WINDOW:
        axis, stride, extent, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (extent - 1) / 2) / stride
    if places is Places.TRANSPOSED_WINDOW:
        axis, stride, extent, pad = conv_params(fn)
        return axis, stride, (extent - 1) / 2 - pad
    if places is Places.SAME:
        return _IDENTITY
    if places is Places.CROPPED:
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset
    raise UndefinedMapException(
        f"coord_map: {fn.type_name} has no coordinate map; expected a window layer, Crop or one of "
        f"{', '.join(_pass_through())}"
    )


def _pass_through() -> tuple[str, ...]:
    return tuple(kind for kind in layer_type_list() if class_of(kind).places is Places.SAME)


def __getattr__(name: str) -> Any:
    if name == "PASS_THROUGH_LAYERS":
        return _pass_through()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def compose(base_map: Map, next_map: Map) -> Map:
    """The map that applies `base_map` after `next_map`.

    Raises:
        AxisMismatchException: the maps refer to different axes.
    """
    axis, scale, shift = base_map
    next_axis, next_scale, next_shift = next_map
    if axis is not None and next_axis is not None and axis != next_axis:
        raise AxisMismatchException(
            f"coord_map: maps of axis {axis} and of axis {next_axis}; expected one axis"
        )
    common_axis = next_axis if axis is None else axis
    return common_axis, scale * next_scale, scale * next_shift + shift


def inverse(coord_map: Map) -> Map:
    """The map of the opposite direction."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from the coordinates of one top to those of another, through a common ancestor.

    Raises:
        CallError: spatial layers lead to no common ancestor; also a RuntimeError.
    """
    from_maps = _ancestor_maps(top_from, lambda top: False)
    to_maps = _ancestor_maps(top_to, lambda top: top in from_maps)
    common = next((top for top in to_maps if top in from_maps), None)
    if common is None:
        raise CallError(
            "coord_map: Could not compute map between tops; are they connected by spatial layers? "
            f"expected a common ancestor of a {top_from.fn.type_name} and a {top_to.fn.type_name}"
        )
    return compose(to_maps[common], inverse(from_maps[common]))


def _ancestor_maps(top: Top, is_last: Callable[[Top], bool]) -> dict[Top, Map]:
    """The maps from a top's ancestors to it, up to layers without maps or the first `is_last`."""
    maps: dict[Top, Map] = {top: _IDENTITY}
    frontier = [top]
    while frontier:
        current = frontier.pop()
        if is_last(current):
            break
        try:
            layer_map = coord_map(current.fn)
        except UndefinedMapException:
            continue
        for bottom in _mapped_bottoms(current.fn):
            if bottom not in maps:
                maps[bottom] = compose(maps[current], layer_map)
                frontier.append(bottom)
    return maps


def _mapped_bottoms(fn: Function) -> Sequence[Top]:
    return fn.inputs[: class_of(fn.type_name).value_bottoms]


def crop(top_from: Top, top_to: Top) -> Any:
    """A Crop layer that aligns `top_from` with `top_to` and gives it the size of `top_to`.

    Raises:
        AlignmentError: the scales differ, or the offset is negative or no whole number; also an
            AssertionError.
        CallError, UndefinedMapException, AxisMismatchException: see coord_map_from_to.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    scale, shift = np.atleast_1d(scale), np.atleast_1d(shift)
    for fault, wrong in (
        (f"scale mismatch on crop (a = {scale})", scale != 1),
        (f"cannot crop negative offset (b = {shift})", shift > 0),
        (f"cannot crop noninteger offset (b = {shift})", np.round(shift) != shift),
    ):
        if np.any(wrong):
            raise AlignmentError(
                f"crop: {fault}; expected tops of one scale, the first larger than the second on "
                "every side by whole pixels; correct pad or stride"
            )
    first = 2 if axis is None else axis + 1
    offset = [int(-value) for value in np.round(shift)]
    return layers.Crop(top_from, top_to, crop_param={"axis": first, "offset": offset})
