"""Nets built for their shapes: without filling weights, opening data or allocating memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.proto import copy_of
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.layers.factory import class_of, layer_type_list
from runtime.net.building import filter_net, net_state
from runtime.net.net import Net
from runtime.net.source_shapes import given_shapes

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
    samples: Mapping[str, Shape] | None = None,
) -> Net:
    """Build a net for its shapes, optionally for another batch or another size of images.

    Sources whose shape is given neither here nor in the prototxt are opened to read it.

    Shapes: `image` (C,H,W) for all sources of images; `samples` the shape of one sample of a
        source, by the name of its top or layer.

    Raises:
        ProtoError: a parameter is wrong, or no layer reads images.
        ShapeError: the batch or the image is below 1, or does not suit a layer.
        UnsupportedError: the net uses a feature that is not implemented.
        DataError: a source cannot be read.
    """
    if batch is not None and batch < 1:
        raise ShapeError(f"batch: expected at least 1 image, got {batch}; use a larger batch")
    if image is not None or batch is not None or samples:
        param = filter_net(param, net_state(phase, level, stages))
    if samples:
        param = _with_inputs(param, given_shapes(param, samples, batch))
    if image is not None:
        param = _with_images(param, image, skip=samples or ())
    if batch is not None:
        param = _with_batch(param, batch)
    net = Net(param, phase, backend, _quiet(context or RunContext()), level, stages)
    if batch is None or batch_of(net) == batch:
        return net
    with net:
        return of_batch(net, batch)


def of_batch(net: Net, batch: int) -> Net:
    """A copy of `net` with another batch size, built for its shapes.

    Raises:
        ShapeError: the batch is below 1.
    """
    if batch < 1:
        raise ShapeError(f"batch: expected at least 1 image, got {batch}; use a larger batch")
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
    """The number of samples in a pass: the first dimension of the first blob of a source."""
    for layer, top in zip(net.layers, net.tops):
        if is_source(layer.param) and top and top[0].num_axes:
            return max(1, top[0].shape[0])
    return 1


def is_source(param: Any) -> bool:
    """Whether a layer reads no blob."""
    return not len(param.bottom)


def _quiet(context: RunContext) -> RunContext:
    """A copy of the context without weight filling and with its own random generator."""
    return dataclasses.replace(context, fill_weights=False, rng=CaffeRandom(0))


def _with_images(param: Any, image: Shape, skip: Collection[str]) -> Any:
    """The net with Input layers in place of the sources of images, except those in `skip`.

    Shapes: image (C,H,W).
    """
    if len(image) != 3 or min(image) < 1:
        raise ShapeError(
            f"image shape: expected channels, height and width of at least 1, got {image}; "
            "use for example 3,224,224"
        )
    shapes: dict[str, list[Shape]] = {}
    for layer in filter(is_source, param.layer):
        if layer.name in skip or any(top in skip for top in layer.top):
            continue
        tops = _image_shapes(layer, image)
        if tops:
            shapes[layer.name] = tops
    if not shapes:
        raise ProtoError(
            f"net '{param.name}': no layer reads images whose shape can be changed; "
            f"expected a layer of type {', '.join(_image_types())}, with a 4-D shape if it is Input"
        )
    return _with_inputs(param, shapes)


def _image_types() -> list[str]:
    return [kind for kind in layer_type_list() if class_of(kind).reads_images]


def _image_shapes(layer: Any, image: Shape) -> list[Shape]:
    """The shapes of the tops of a source for images of another shape; empty without images."""
    source = class_of(layer.type)
    if not source.reads_images:
        return []
    if source.batch_param:
        batch = int(getattr(layer, source.batch_param).batch_size)
        return [(batch, *image), (batch,)][: len(layer.top)]
    tops = [tuple(int(d) for d in shape.dim) for shape in getattr(layer, source.shape_param).shape]
    if not any(len(shape) == _IMAGE_AXES for shape in tops):
        return []
    return [(shape[0], *image) if len(shape) == _IMAGE_AXES else shape for shape in tops]


def _with_batch(param: Any, batch: int) -> Any:
    """The net with another batch in the sources whose prototxt has one."""
    changed = copy_of(param)
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
    """The net with an Input layer, of one shape per top, in place of each named source."""
    changed = copy_of(param)
    for layer in changed.layer:
        if layer.name in shapes and is_source(layer):
            layer.type = "Input"
            layer.ClearField("input_param")
            for shape in shapes[layer.name]:
                layer.input_param.shape.add(dim=shape)
    return changed
