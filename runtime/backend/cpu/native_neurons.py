"""ReLU and dropout by the compiled kernels."""

from __future__ import annotations

import math

import numpy as np

from runtime.backend.base import Draw, HostArray, NeuronOps
from runtime.backend.cpu.native_library import NativeLibrary, elements, floats

_BYTE = np.dtype(np.uint8)


class NativeNeurons(NeuronOps):
    """NeuronOps by the compiled kernels."""

    def __init__(self, library: NativeLibrary) -> None:
        self._library = library

    def relu_forward(self, x: HostArray, y: HostArray, negative_slope: float) -> None:
        n = x.size
        operands = (floats("relu_forward: x", x, n), floats("relu_forward: y", y, n))
        self._library.run("relu_forward", n, negative_slope, *operands)

    def relu_backward(
        self, x: HostArray, dy: HostArray, dx: HostArray, negative_slope: float
    ) -> None:
        n = x.size
        operands = (
            floats("relu_backward: x", x, n),
            floats("relu_backward: dy", dy, n),
            floats("relu_backward: dx", dx, n),
        )
        self._library.run("relu_backward", n, negative_slope, *operands)

    def dropout_forward(
        self, x: HostArray, y: HostArray, mask: HostArray, ratio: float, draw: Draw
    ) -> None:
        n, samples = x.size, x.shape[0] if x.ndim else 1
        # A uniform number is a multiple of 2^-24, so comparing integers is exact.
        threshold = math.ceil(ratio * 2**24)
        operands = (
            floats("dropout_forward: x", x, n),
            elements("dropout_forward: mask", mask, n, _BYTE),
            floats("dropout_forward: y", y, n),
        )
        word = (1 << 64) - 1
        self._library.run(
            "dropout_forward",
            samples,
            n // max(1, samples),
            draw.first_sample & word,
            draw.seed & word,
            draw.stream & 0xFFFFFFFF,
            threshold,
            _scale(ratio),
            *operands,
        )

    def dropout_backward(self, dy: HostArray, mask: HostArray, dx: HostArray, ratio: float) -> None:
        n = dy.size
        operands = (
            floats("dropout_backward: dy", dy, n),
            elements("dropout_backward: mask", mask, n, _BYTE),
            floats("dropout_backward: dx", dx, n),
        )
        self._library.run("dropout_backward", n, _scale(ratio), *operands)


def _scale(ratio: float) -> float:
    """The factor for kept elements; ratio 1 keeps none."""
    return 1.0 / (1.0 - ratio) if ratio < 1.0 else 1.0
