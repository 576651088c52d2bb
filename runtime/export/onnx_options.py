"""The options of an ONNX model, and the shapes of inputs that they allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prototxt_gen.errors import ShapeError, UnsupportedError
from runtime.bundle.preprocessing import Preprocessing
from runtime.export.onnx_graph import OPSET
from runtime.export.onnx_sizes import Shape, Shapes
from runtime.net import Net

_TRACED = ((32, 64), (160, 96))
"""What is added to height and width for each further conversion of a model of any size."""
_COUNTS = (1, 3, 7)
"""The numbers of samples with which a model of any batch is compared."""
_LARGER = ((32, 64), (37, 50), (64, 32))
"""What is added to height and width for the comparison of a model of any size."""


@dataclass(frozen=True)
class OnnxOptions:
    """What an ONNX model accepts and contains."""

    any_batch: bool = False
    """Any number of samples, instead of the net's."""
    any_size: bool = False
    """Images of any height and width, for a net without fully connected layers."""
    opset: int = OPSET
    half: bool = False
    """Weights and arithmetic in float16."""
    images: Preprocessing | None = None
    """The input is images, (N,H,W,C) uint8, which the model prepares in this way."""
    metadata: Mapping[str, str] = field(default_factory=dict)


def shapes_to_trace(net: Net, options: OnnxOptions) -> Iterator[Shapes]:
    """The shapes of inputs, in addition to the net's, at which a net is converted."""
    if not net.inputs or not net.blobs[net.inputs[0]].shape:
        return
    for more, larger in enumerate(_TRACED, 1):
        yield _other_shapes(net, options, net.blobs[net.inputs[0]].shape[0] + more, larger)


def _other_shapes(
    net: Net, options: OnnxOptions, count: int, larger: tuple[int, int]
) -> dict[str, Shape]:
    """Shapes of the inputs for another number of samples, and for larger images.

    Only the sizes that the options leave free differ from the net's.
    """
    shapes = {name: net.blobs[name].shape for name in net.inputs}
    first = shapes[net.inputs[0]]
    for name, shape in shapes.items():
        if options.any_batch and shape and shape[0] == first[0]:
            shape = (count, *shape[1:])
        if options.any_size and len(shape) == 4 and shape[2:] == first[2:]:
            shape = (*shape[:2], shape[2] + larger[0], shape[3] + larger[1])
        shapes[name] = shape
    return shapes


def shapes_to_compare(net: Net, options: OnnxOptions) -> Iterator[Shapes]:
    """The shapes of inputs at which a model is compared with the net."""
    yield {}
    if options.any_batch and net.inputs:
        for count in _COUNTS:
            yield _other_shapes(net, options, count, (0, 0))
    if options.any_size and net.inputs:
        for larger in _LARGER:
            shapes = _other_shapes(net, options, 1, larger)
            # Some nets take images of some sizes alone.
            if _takes(net, shapes, options):
                yield shapes


@contextlib.contextmanager
def reshaped(net: Net, shapes: Shapes, options: OnnxOptions) -> Iterator[None]:
    """Give the inputs of a net other shapes for the time of the context.

    Raises:
        UnsupportedError: the net does not take them.
    """
    before = {name: net.blobs[name].shape for name in shapes}
    with net.exclusive():
        try:
            _reshape(net, shapes, options)
            yield
        finally:
            for name, shape in before.items():
                net.blobs[name].reshape(shape)
            net.reshape()


def _takes(net: Net, shapes: Shapes, options: OnnxOptions) -> bool:
    try:
        with reshaped(net, shapes, options):
            return True
    except UnsupportedError:
        return False


def _reshape(net: Net, shapes: Shapes, options: OnnxOptions) -> None:
    try:
        for name, shape in shapes.items():
            net.blobs[name].reshape(shape)
        net.reshape()
    except ShapeError as cause:
        free, advice = "any number of samples", "export it with --batch fixed"
        if options.any_size:
            free, advice = "images of any size", "export the dense net, or without --any-size"
        raise UnsupportedError(
            f"net '{net.name}': does not take {free} ({cause}); expected a net for inputs of "
            f"{dict(shapes)}; {advice}"
        ) from cause
