"""ReLU and dropout."""

from __future__ import annotations

import math

import numpy as np

from data_prep import philox
from runtime.backend.base import Draw, HostArray, NeuronOps
from runtime.backend.cpu.lanes import Lane, Runner

_GRAIN = 1 << 15
_WORD = 0xFFFFFFFF


class NumpyNeurons(NeuronOps):
    """NeuronOps in NumPy."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def relu_forward(self, x: HostArray, y: HostArray, negative_slope: float) -> None:
        source, target = x.reshape(-1), y.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            part, out = source[start:stop], target[start:stop]
            zeros = lane.zeros(stop - start, part.dtype)
            if negative_slope == 0.0:
                np.maximum(part, zeros, out=out)
                return
            low = lane.scratch("neuron", (stop - start,), part.dtype)
            np.minimum(part, zeros, out=low)
            low *= negative_slope
            np.maximum(part, zeros, out=out)
            out += low

        self._runner.run(task, source.size, _GRAIN)

    def relu_backward(
        self, x: HostArray, dy: HostArray, dx: HostArray, negative_slope: float
    ) -> None:
        data, top, bottom = x.reshape(-1), dy.reshape(-1), dx.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            gate = lane.scratch("gate", (stop - start,), np.dtype(np.bool_))
            np.greater(data[start:stop], 0.0, out=gate)
            if negative_slope == 0.0:
                np.multiply(top[start:stop], gate, out=bottom[start:stop])
                return
            slope = lane.scratch("neuron", (stop - start,), top.dtype)
            slope[...] = negative_slope
            slope[gate] = 1.0
            np.multiply(top[start:stop], slope, out=bottom[start:stop])

        self._runner.run(task, data.size, _GRAIN)

    def dropout_forward(
        self, x: HostArray, y: HostArray, mask: HostArray, ratio: float, draw: Draw
    ) -> None:
        samples = x.shape[0] if x.ndim else 1
        count = x.size // max(1, samples)
        data, out, kept = (a.reshape(samples, count) for a in (x, y, mask))
        # A uniform number is a multiple of 2^-24, so comparing integers is exact.
        threshold = np.uint32(math.ceil(ratio * 2**24))

        def task(lane: Lane, start: int, stop: int) -> None:
            numbers = range(draw.first_sample + start, draw.first_sample + stop)
            high = np.array([number >> 32 & _WORD for number in numbers], np.uint32)
            low = np.array([number & _WORD for number in numbers], np.uint32)
            words = philox.words(draw.seed, draw.stream, high, low, count)
            words >>= np.uint32(8)
            np.greater_equal(words, threshold, out=kept[start:stop], casting="unsafe")
            self._apply(data[start:stop], kept[start:stop], out[start:stop], ratio)

        self._runner.run(task, samples, max(1, _GRAIN // 4 // max(1, count)))

    def dropout_backward(self, dy: HostArray, mask: HostArray, dx: HostArray, ratio: float) -> None:
        top, kept, bottom = dy.reshape(-1), mask.reshape(-1), dx.reshape(-1)

        def task(lane: Lane, start: int, stop: int) -> None:
            self._apply(top[start:stop], kept[start:stop], bottom[start:stop], ratio)

        self._runner.run(task, top.size, _GRAIN)

    @staticmethod
    def _apply(src: HostArray, kept: HostArray, dst: HostArray, ratio: float) -> None:
        """Set dropped elements to 0 and scale the others; ratio 1 drops all."""
        np.multiply(src, kept, out=dst)
        if ratio < 1.0:
            dst *= 1.0 / (1.0 - ratio)
