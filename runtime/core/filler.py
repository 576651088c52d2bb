"""Fillers: initial values of weights. Caffe: filler.hpp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError, UnsupportedError
from runtime.core.blob import Blob
from runtime.core.context import RunContext
from runtime.core.layer import Layer
from runtime.core.rng import CaffeRandom

Values = npt.NDArray[Any]
Shape = Sequence[int]


def fill(blob: Blob, param: Any, context: RunContext, label: str) -> None:
    """Fill a blob's data according to a FillerParameter, with numbers from `context.rng`.

    Raises:
        UnsupportedError: the filler type is unknown.
        ProtoError, ShapeError: the filler cannot fill a blob of this shape.
    """
    _check(blob.shape, param, label)
    if not context.fill_weights:
        return
    if param.type == "constant" and not param.value:
        blob.data.clear()
        return
    values = _FILLERS[param.type](param, blob.shape, context.rng)
    blob.data.mutable_host()[...] = np.asarray(values).reshape(blob.shape)


@dataclass(frozen=True)
class _Draw:
    """The draws of a filler for a shape, made without filling a blob."""

    filler: bytes
    shape: tuple[int, ...]

    def __call__(self, rng: CaffeRandom) -> None:
        param = proto.FillerParameter.FromString(self.filler)
        _FILLERS[param.type](param, self.shape, rng)


def fill_weight(layer: Layer, index: int, param: Any) -> None:
    """Fill a weight blob of a layer, unless its values are replaced before they are read.

    In that case its draws are postponed: later draws give the same numbers as after filling.

    Raises:
        UnsupportedError, ProtoError, ShapeError: see `fill`.
    """
    blob, context = layer.blobs[index], layer.context
    if layer.param.name not in context.replaced or not context.fill_weights:
        fill(blob, param, context, layer.label)
        return
    _check(blob.shape, param, layer.label)
    if param.type in RANDOM:
        context.rng.postpone(_Draw(param.SerializeToString(deterministic=True), blob.shape))


def skip_fill(layer: Layer, index: int, param: Any) -> None:
    """Advance the random stream as filling a weight blob of a layer would."""
    if layer.context.fill_weights and param.type in RANDOM:
        shape = layer.blobs[index].shape
        layer.context.rng.postpone(_Draw(param.SerializeToString(deterministic=True), shape))


def _check(shape: Shape, param: Any, label: str) -> None:
    kind = param.type
    if kind not in _FILLERS:
        raise UnsupportedError(
            f"{label}: unknown filler type '{kind}'; expected one of {', '.join(sorted(_FILLERS))}"
        )
    if not math.prod(shape):
        raise ShapeError(
            f"{label}: the {kind} filler has no element to fill; expected at least one, got shape "
            f"{tuple(shape)}; change the layer's sizes or its input's shape"
        )
    if param.sparse != -1:
        _check_sparse(shape, param, label)
    if kind == "bilinear" and (len(shape) != 4 or shape[2] != shape[3]):
        raise ProtoError(
            f"{label}: the bilinear filler expected a 4-D blob with square kernels, got shape "
            f"{tuple(shape)}; choose another filler"
        )


def _check_sparse(shape: Shape, param: Any, label: str) -> None:
    """Check `sparse`: the mean number of nonzero weights among shape[0]."""
    if param.type != "gaussian":
        raise ProtoError(
            f"{label}: sparse applies to the gaussian filler only, got '{param.type}'; remove it"
        )
    if not shape or param.sparse > shape[0]:
        most = shape[0] if shape else 0
        raise ProtoError(
            f"{label}: sparse is out of range; expected -1 or at most the {most} outputs of shape "
            f"{tuple(shape)}, got {param.sparse}; lower it"
        )


def _constant(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    return np.full(math.prod(shape), param.value, np.float32)


def _uniform(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    return rng.uniform(math.prod(shape), param.min, param.max)


def _gaussian(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    values = rng.gaussian(math.prod(shape), param.mean, param.std)
    if param.sparse >= 0:
        values = values * rng.bernoulli(math.prod(shape), param.sparse / shape[0])
    return values


def _positive_unitball(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    values = rng.uniform(math.prod(shape), 0.0, 1.0).reshape(_outputs(shape), -1)
    # A sequential float32 sum, as in Caffe's loop.
    return values / np.cumsum(values, axis=1, dtype=np.float32)[:, -1:]


def _outputs(shape: Shape) -> int:
    """The first dimension, 1 without axes. Caffe: Blob::num."""
    return shape[0] if shape else 1


def _fan(param: Any, shape: Shape) -> np.float32:
    """The n of xavier and msra: the fan-in, the fan-out, or their mean."""
    count = math.prod(shape)
    fan_in = count // _outputs(shape)
    fan_out = count // shape[1] if len(shape) > 1 else count
    if param.variance_norm == proto.FillerParameter.AVERAGE:
        return np.float32(fan_in + fan_out) / np.float32(2)
    return np.float32(fan_out if param.variance_norm == proto.FillerParameter.FAN_OUT else fan_in)


def _xavier(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    scale = np.sqrt(np.float32(3) / _fan(param, shape))
    return rng.uniform(math.prod(shape), float(-scale), float(scale))


def _msra(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    scale = np.sqrt(np.float32(2) / _fan(param, shape))
    return rng.gaussian(math.prod(shape), 0.0, float(scale))


def _bilinear(param: Any, shape: Shape, rng: CaffeRandom) -> Values:
    """Upsampling weights for Deconvolution, the same for every channel."""
    width = shape[3]
    factor = math.ceil(width / 2)
    center = np.float32((width - 1) / (2.0 * factor))
    ramp = 1 - np.abs(np.arange(width, dtype=np.float32) / np.float32(factor) - center)
    return np.broadcast_to(np.outer(ramp, ramp), tuple(shape))


_FILLERS: dict[str, Callable[[Any, Shape, CaffeRandom], Values]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
RANDOM = frozenset({"uniform", "gaussian", "positive_unitball", "xavier", "msra"})
"""The fillers that draw from the random stream."""
