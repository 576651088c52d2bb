"""Fillers: how weights begin. Caffe: filler.hpp."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from runtime.blob import Blob
from runtime.context import RunContext
from runtime.rng import CaffeRandom

Values = npt.NDArray[Any]
Shape = Sequence[int]


def fill(blob: Blob, param: Any, context: RunContext, where: str) -> None:
    """Fill a blob's data as a FillerParameter says, from the context's stream.

    Raises:
        UnsupportedError: an unknown filler type; lists the known.
    """
    filler = _FILLERS.get(param.type)
    if filler is None:
        raise UnsupportedError(
            f"{where}: unknown filler type '{param.type}'; expected one of "
            f"{', '.join(sorted(_FILLERS))}"
        )
    if not context.fill_weights:
        return
    if param.sparse != -1 and param.type != "gaussian":
        raise ProtoError(
            f"{where}: sparse is for the gaussian filler, got '{param.type}'; remove it"
        )
    if param.type == "constant" and not param.value:
        blob.data.clear()
        return
    values = filler(param, blob.shape, context.rng, where)
    blob.data.mutable_host()[...] = np.asarray(values).reshape(blob.shape)


def _count(shape: Shape) -> int:
    return math.prod(shape)


def _constant(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    return np.full(_count(shape), param.value, np.float32)


def _uniform(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    return rng.uniform(_count(shape), param.min, param.max)


def _gaussian(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    values = rng.gaussian(_count(shape), param.mean, param.std)
    if param.sparse >= 0:
        # `sparse` is the expected number of non-zero inputs of each output.
        values = values * rng.bernoulli(_count(shape), param.sparse / shape[0])
    return values


def _positive_unitball(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    values = rng.uniform(_count(shape), 0.0, 1.0).reshape(shape[0], -1)
    # A running float32 sum, as Caffe's loop adds.
    return values / np.cumsum(values, axis=1, dtype=np.float32)[:, -1:]


def _fan(param: Any, shape: Shape) -> np.float32:
    """The n of xavier and msra: inputs an output sees, outputs an input feeds, or their mean."""
    count = _count(shape)
    fan_in = count // shape[0]
    fan_out = count // shape[1] if len(shape) > 1 else count
    if param.variance_norm == proto.FillerParameter.AVERAGE:
        return np.float32(fan_in + fan_out) / np.float32(2)
    return np.float32(fan_out if param.variance_norm == proto.FillerParameter.FAN_OUT else fan_in)


def _xavier(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    scale = np.sqrt(np.float32(3) / _fan(param, shape))
    return rng.uniform(_count(shape), float(-scale), float(scale))


def _msra(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    return rng.gaussian(_count(shape), 0.0, float(np.sqrt(np.float32(2) / _fan(param, shape))))


def _bilinear(param: Any, shape: Shape, rng: CaffeRandom, where: str) -> Values:
    """Upsampling weights for Deconvolution, alike for every channel."""
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ProtoError(
            f"{where}: the bilinear filler expected a 4-D blob with square kernels, "
            f"got shape {tuple(shape)}"
        )
    width = shape[3]
    factor = math.ceil(width / 2)
    center = np.float32((width - 1) / (2.0 * factor))
    ramp = 1 - np.abs(np.arange(width, dtype=np.float32) / np.float32(factor) - center)
    return np.broadcast_to(np.outer(ramp, ramp), tuple(shape))


_FILLERS: dict[str, Callable[[Any, Shape, CaffeRandom, str], Values]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
RANDOM = frozenset({"uniform", "gaussian", "positive_unitball", "xavier", "msra"})
"""Those that draw from the stream."""
