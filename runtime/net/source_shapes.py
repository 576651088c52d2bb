"""Shapes given for the sources of a net: its layers without bottoms become Input layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.layers.factory import class_of

Shape = tuple[int, ...]

_LABEL = "label"


def given_shapes(
    param: Any, samples: Mapping[str, Shape], batch: int | None = None
) -> dict[str, list[Shape]]:
    """The shapes of all tops of the sources that are named, by layer.

    `samples` has the shape of one sample by the name of a top, or of a layer for its first top.
    Other tops of the same layer keep the shapes that the prototxt has, or are labels. Sources
    without a batch of their own get `batch`, or 1.

    Raises:
        ProtoError: a name is not that of a source, or the shape of another top is unknown.
        ShapeError: a dimension is below 1.
    """
    sources = [layer for layer in param.layer if not len(layer.bottom) and len(layer.top)]
    by_top = _by_top(param, sources, samples)
    named = [layer for layer in sources if any(str(top) in by_top for top in layer.top)]
    return {str(layer.name): _shapes(layer, by_top, batch or 1) for layer in named}


def _by_top(param: Any, sources: list[Any], samples: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of `samples` by the names of tops."""
    tops = [str(top) for layer in sources for top in layer.top]
    first = {str(layer.name): str(layer.top[0]) for layer in sources}
    by_top: dict[str, Shape] = {}
    for name, shape in samples.items():
        if any(dim < 1 for dim in shape):
            raise ShapeError(
                f"shape of '{name}': expected dimensions of at least 1, got {shape}; correct them"
            )
        top = name if name in tops else first.get(name)
        if top is None:
            names = ", ".join(dict.fromkeys(tops)) or "none"
            raise ProtoError(
                f"net '{param.name}': no source has a top '{name}'; expected a blob that comes "
                f"into the net ({names}); correct the name"
            )
        by_top[top] = shape
    return by_top


def _shapes(layer: Any, by_top: Mapping[str, Shape], batch: int) -> list[Shape]:
    own = _own_shapes(layer)
    source = class_of(layer.type)
    if source.batch_param:
        batch = max(1, int(getattr(layer, source.batch_param).batch_size))
    shapes: list[Shape] = []
    for index, top in enumerate(map(str, layer.top)):
        if top in by_top:
            first = own[index][:1] if own else (batch,)
            shapes.append((*(first or (batch,)), *by_top[top]))
        elif own:
            shapes.append(own[index])
        elif index and (source.reads_images or top == _LABEL):
            shapes.append((batch,))
        else:
            raise ProtoError(
                f"layer '{layer.name}': the shape of its top '{top}' is not given; expected one "
                f"for each top of the layer; add --shape {top}=..."
            )
    return shapes


def _own_shapes(layer: Any) -> list[Shape]:
    """The shapes that the prototxt gives the tops of a source; empty if it gives none."""
    key = class_of(layer.type).shape_param
    shapes = [tuple(int(d) for d in s.dim) for s in getattr(layer, key).shape] if key else []
    if len(shapes) == 1:
        shapes *= len(layer.top)
    return shapes if len(shapes) == len(layer.top) else []
