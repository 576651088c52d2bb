"""Nets made for their shapes only: no weights are filled, no data is opened, no memory taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.layers.factory import class_of, layer_type_list
from runtime.net.building import filter_net, net_state
from runtime.net.net import Net

Shape = tuple[int, ...]

_IMAGE_AXES = 4


def shape_net(
    param: Any,
    phase: int,
    backend: Backend,
    context: RunContext | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
    *,
    batch: int | None = None,
    image: Shape | None = None,
) -> Net:
    """The net of a NetParameter in its shapes, if asked for another batch or images (C,H,W).

    With `image` no source is looked at; without, those that do not say their shape are.

    Raises:
        ProtoError, ShapeError, UnsupportedError, DataError: what does not fit, and where.
    """
    if batch is not None and batch < 1:
        raise ShapeError(f"batch: expected at least 1 image, got {batch}; correct it")
    if image is not None or batch is not None:
        param = filter_net(param, net_state(phase, level, stages))
    if image is not None:
        param = _with_images(param, image)
    if batch is not None:
        param = _with_batch(param, batch)
    net = Net(param, phase, backend, _quiet(context or RunContext()), level, stages)
    if batch is None or batch_of(net) == batch:
        return net
    with net:
        return of_batch(net, batch)


def of_batch(net: Net, batch: int) -> Net:
    """The same net for another batch, in its shapes; `net` itself is left alone.

    Raises:
        ShapeError: a batch below 1.
    """
    if batch < 1:
        raise ShapeError(f"batch: expected at least 1 image, got {batch}; correct it")
    old = batch_of(net)
    shapes = {
        str(layer.param.name): [
            (batch, *blob.shape[1:]) if blob.shape[:1] == (old,) else blob.shape for blob in top
        ]
        for layer, top in zip(net.layers, net.tops)
        if is_source(layer.param) and not layer.blobs
    }
    state = net.param.state
    return Net(
        _with_inputs(net.param, shapes),
        net.phase,
        net.backend,
        _quiet(net.context),
        state.level,
        list(state.stage),
    )


def batch_of(net: Net) -> int:
    """Samples of one pass: the first dimension of the first blob that comes into the net."""
    for layer, top in zip(net.layers, net.tops):
        if is_source(layer.param) and top and top[0].num_axes:
            return max(1, top[0].shape[0])
    return 1


def is_source(param: Any) -> bool:
    """Whether a layer reads no blob: data comes into the net there."""
    return not len(param.bottom)


def _quiet(context: RunContext) -> RunContext:
    """The context for a net of shapes, which draws nothing from the run's random numbers."""
    return dataclasses.replace(context, fill_weights=False, rng=CaffeRandom(0))


def _with_images(param: Any, image: Shape) -> Any:
    """The net with its images in another shape (C,H,W); their sources become Input layers."""
    if len(image) != 3 or min(image) < 1:
        raise ShapeError(
            f"image shape: expected channels, height and width of at least 1, got {image}; "
            "write for example 3,224,224"
        )
    shapes: dict[str, list[Shape]] = {}
    for layer in filter(is_source, param.layer):
        shaped = _with_image(layer, image)
        if shaped:
            shapes[layer.name] = shaped
    if not shapes:
        raise ProtoError(
            f"net '{param.name}': no layer brings in images of a shape that could be changed; "
            f"expected a layer of type {', '.join(_image_types())}, with a 4-D shape if it is Input"
        )
    return _with_inputs(param, shapes)


def _image_types() -> list[str]:
    return [kind for kind in layer_type_list() if class_of(kind).reads_images]


def _with_image(layer: Any, image: Shape) -> list[Shape]:
    """The shapes of a source's tops with its images in another shape; none if it has no images."""
    source = class_of(layer.type)
    if not source.reads_images:
        return []
    if source.batch_param:
        batch = int(getattr(layer, source.batch_param).batch_size)
        return [(batch, *image), (batch,)][: len(layer.top)]
    given = [tuple(int(d) for d in shape.dim) for shape in getattr(layer, source.shape_param).shape]
    if not any(len(shape) == _IMAGE_AXES for shape in given):
        return []
    return [(shape[0], *image) if len(shape) == _IMAGE_AXES else shape for shape in given]


def _with_batch(param: Any, batch: int) -> Any:
    """The net with another batch in the sources that say theirs."""
    changed = type(param)()
    changed.CopyFrom(param)
    old = None
    for layer in filter(is_source, changed.layer):
        source = class_of(layer.type)
        if source.batch_param:
            source.set_batch(layer, batch)
        for shape in getattr(layer, source.shape_param).shape if source.shape_param else ():
            if len(shape.dim):
                old = shape.dim[0] if old is None else old
                shape.dim[0] = batch if shape.dim[0] == old else shape.dim[0]
    return changed


def _with_inputs(param: Any, shapes: dict[str, list[Shape]]) -> Any:
    """The net with Input layers of these shapes, one a top, in place of the layers named."""
    changed = type(param)()
    changed.CopyFrom(param)
    for layer in changed.layer:
        if layer.name in shapes and is_source(layer):
            layer.type = "Input"
            layer.ClearField("input_param")
            for shape in shapes[layer.name]:
                layer.input_param.shape.add(dim=shape)
    return changed
