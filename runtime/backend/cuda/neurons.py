"""ReLU and dropout."""

from __future__ import annotations

import math

from runtime.backend.base import Draw, NeuronOps
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.launcher import (
    QUAD,
    Launcher,
    blocks,
    expect_same_size,
    rows_along_y,
)

_WORD = (1 << 64) - 1


class CudaNeurons(NeuronOps):
    """NeuronOps by CUDA kernels."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def relu_forward(self, x: DeviceArray, y: DeviceArray, negative_slope: float) -> None:
        count = expect_same_size("relu_forward", x, y)
        self._launcher.elementwise("relu", "relu_forward", count, (x, y, count, negative_slope))

    def relu_backward(
        self, x: DeviceArray, dy: DeviceArray, dx: DeviceArray, negative_slope: float
    ) -> None:
        count = expect_same_size("relu_backward", x, dy, dx)
        args = (x, dy, dx, count, negative_slope)
        self._launcher.elementwise("relu", "relu_backward", count, args)

    def dropout_forward(
        self, x: DeviceArray, y: DeviceArray, mask: DeviceArray, ratio: float, draw: Draw
    ) -> None:
        count = expect_same_size("dropout_forward", x, y, mask)
        samples = x.shape[0] if x.shape else 1
        per_sample = count // max(1, samples)
        # Uniform numbers are integer multiples of 2^-24, so the comparison of integers is exact.
        threshold = math.ceil(ratio * 2**24)
        width = QUAD * self._launcher.constant("dropout", "BLOCK")
        block = self._launcher.block
        clock, first = (None, draw.first_sample) if block is None else block.place(draw, samples)
        self._launcher.run(
            "dropout",
            "dropout_forward",
            (blocks(per_sample, width), rows_along_y(samples), 1),
            (
                *(x, y, mask, samples, per_sample, threshold, _scale(ratio)),
                *(draw.seed & _WORD, draw.stream & 0xFFFFFFFF, first & _WORD, clock),
            ),
        )

    def dropout_backward(
        self, dy: DeviceArray, mask: DeviceArray, dx: DeviceArray, ratio: float
    ) -> None:
        count = expect_same_size("dropout_backward", dy, mask, dx)
        args = (dy, mask, dx, count, _scale(ratio))
        self._launcher.elementwise("dropout", "dropout_backward", count, args)


def _scale(ratio: float) -> float:
    """The scale of the values that remain; 0 for ratio 1, which drops all."""
    return 1.0 / (1.0 - ratio) if ratio < 1.0 else 0.0
