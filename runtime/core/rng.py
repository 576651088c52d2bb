"""Caffe's random stream on the CPU: a Mersenne twister with the distributions of boost.

With the same seed, fillers produce exactly the values of original Caffe; all draws are float32, as
in Caffe. Augmentation and dropout use counter-based numbers instead (data_prep/philox.py), which do
not depend on how a batch is split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from prototxt_gen.number_limits import check_uniform
from runtime.process.process_lock import ProcessLock

Float32 = npt.NDArray[np.float32]
Uint32 = npt.NDArray[np.uint32]

_BLOCK = 1 << 20
_MARGIN = 64
_TWO32 = np.float32(2.0**32)
_TWO24 = np.float32(2.0**-24)


Draw = Callable[["CaffeRandom"], object]


class RawStream:
    """The 32-bit outputs of mt19937, generated in blocks and returned in order."""

    def __init__(self, seed: int) -> None:
        self.lock = ProcessLock()
        """Held while a distribution draws: threads that share a stream get different numbers."""
        self._source = np.random.RandomState(seed & 0xFFFFFFFF)
        self._ahead: Uint32 = np.empty(0, np.uint32)
        self._postponed: list[Draw] = []
        self._distinct: dict[Draw, Draw] = {}

    def postpone(self, draw: Draw) -> None:
        """Make a draw, whose numbers are not used, only when later numbers are needed."""
        self._postponed.append(self._distinct.setdefault(draw, draw))

    def peek(self, count: int) -> Uint32:
        """The next `count` outputs, which stay in the stream. Shapes: (count,)."""
        if self._postponed:
            self._catch_up()
        missing = count - self._ahead.size
        if missing > 0:
            fresh = np.frombuffer(self._source.bytes(4 * missing), "<u4")
            self._ahead = np.concatenate([self._ahead, fresh.astype(np.uint32)])
        return self._ahead[:count]

    def _catch_up(self) -> None:
        draws, self._postponed = self._postponed, []
        rng = CaffeRandom.on(self)
        for draw in draws:
            draw(rng)

    def skip(self, count: int) -> None:
        """Remove the next `count` outputs, which `peek` has returned."""
        self._ahead = self._ahead[count:]

    def take(self, count: int) -> Uint32:
        """Remove and return the next `count` outputs. Shapes: (count,)."""
        values = self.peek(count).copy()
        self.skip(count)
        return values


@dataclass(frozen=True)
class _Ziggurat:
    """Layer edges x and heights y; layer 0 is the base with the tail."""

    x: Float32
    y: Float32

    @classmethod
    def normal(cls, layers: int, start: float) -> _Ziggurat:
        """Divide the area under exp(-x^2/2) into layers of equal area."""
        tail = math.sqrt(math.pi / 2) * math.erfc(start / math.sqrt(2))
        base = math.exp(-start * start / 2)
        return cls._cut(layers, start, base, tail, lambda y: math.sqrt(-2 * math.log(y)))

    @classmethod
    def exponential(cls, layers: int, start: float) -> _Ziggurat:
        """Divide the area under exp(-x) into layers of equal area."""
        base = math.exp(-start)
        return cls._cut(layers, start, base, base, lambda y: -math.log(y))

    @classmethod
    def _cut(
        cls, layers: int, start: float, base: float, tail: float, inverse: Callable[[float], float]
    ) -> _Ziggurat:
        area = start * base + tail
        x, y = [area / base, start], [0.0, base]
        for _ in range(2, layers):
            y.append(y[-1] + area / x[-1])
            x.append(inverse(y[-1]))
        return cls(np.array([*x, 0.0], np.float32), np.array([*y, 1.0], np.float32))


@cache
def _normal_table() -> _Ziggurat:
    return _Ziggurat.normal(128, 3.4426198558966521214)


@cache
def _exponential_table() -> _Ziggurat:
    return _Ziggurat.exponential(256, 7.6971174701310497140)


class CaffeRandom:
    """Caffe's global random generator as an object.

    Caffe: util/rng.hpp, util/math_functions.cpp (caffe_rng_*), boost 1.74's distributions.
    """

    def __init__(self, seed: int) -> None:
        self._stream = RawStream(seed)

    @classmethod
    def on(cls, stream: RawStream) -> CaffeRandom:
        """A generator that draws from an existing stream."""
        rng = CaffeRandom.__new__(CaffeRandom)
        rng._stream = stream
        return rng

    def stream(self) -> RawStream:
        """The stream of the next draw."""
        return self._stream

    def postpone(self, draw: Draw) -> None:
        """Make a draw, whose numbers are not used, only when later numbers are needed.

        Later numbers are the same as if it were made now. Draws must be hashable: equal draws are
        stored once.
        """
        stream = self.stream()
        with stream.lock.current():
            stream.postpone(draw)

    def raw(self) -> int:
        """One 32-bit output. Caffe: caffe_rng_rand."""
        stream = self.stream()
        with stream.lock.current():
            return int(stream.take(1)[0])

    def uniform(self, count: int, low: float, high: float) -> Float32:
        """Uniform numbers in [low, high]. Caffe: caffe_rng_uniform.

        Shapes: (count,).

        Raises:
            ProtoError: the limits are not finite or not in order.
        """
        check_uniform(low, high, "uniform")
        a, b = np.float32(low), np.nextafter(np.float32(high), np.float32(np.inf))
        parts: list[Float32] = []
        missing, stream = count, self.stream()
        with stream.lock.current():
            while missing > 0:
                values = stream.take(missing).astype(np.float32) / _TWO32 * (b - a) + a
                values = values[values < b]  # rounding may give the excluded limit b: draw again
                parts.append(values)
                missing -= values.size
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def bernoulli(self, count: int, probability: float) -> npt.NDArray[np.bool_]:
        """True with the given probability. Shapes: (count,). Caffe: caffe_rng_bernoulli."""
        limit = np.float32(probability) * np.float32(2.0**32 - 1)
        if probability == 0:
            return np.zeros(count, np.bool_)
        stream = self.stream()
        with stream.lock.current():
            return np.asarray(stream.take(count).astype(np.float32) <= limit)

    def gaussian(self, count: int, mean: float, std: float) -> Float32:
        """Normally distributed numbers. Shapes: (count,). Caffe: caffe_rng_gaussian."""
        unit = np.empty(count, np.float32)
        done, stream = 0, self.stream()
        with stream.lock.current():
            while done < count:
                done += _fill_normal(stream, unit[done : done + _BLOCK])
        return unit * np.float32(std) + np.float32(mean)


def _fill_normal(stream: RawStream, out: Float32) -> int:
    """Fill the start of `out` with normal numbers and return their count.

    All outputs are first processed at once, as if each started a new number. The 1 % that need more
    outputs are then processed in order, since they consume the outputs that follow.
    """
    table = _normal_table()
    # The tail may read further outputs, so the last ones of a block start no number.
    raw = stream.peek(out.size + out.size // 16 + 2 * _MARGIN)
    layer = (raw >> 1) & 127
    x = (raw >> 8).astype(np.float32) * _TWO24 * table.x[layer]
    value = np.where(raw & 1, x, -x)
    emits = np.ones(raw.size, np.bool_)
    emits[raw.size - _MARGIN :] = False
    consumed = np.zeros(raw.size, np.bool_)
    for index in np.flatnonzero(x >= table.x[layer + 1]):
        if consumed[index] or index >= raw.size - _MARGIN:
            continue
        if layer[index] == 0:
            tail, used = _normal_tail(raw[index + 1 :])
            value[index] = tail if raw[index] & 1 else -tail
        else:
            emits[index] = _normal_accepts(table, int(layer[index]), x[index], raw[index + 1])
            used = 1
        consumed[index + 1 : index + 1 + used] = True
    emits &= ~consumed
    places = np.flatnonzero(emits)[: out.size]
    out[: places.size] = value[places]
    end = int(places[-1]) + 1
    while consumed[end]:
        end += 1
    stream.skip(end)
    return int(places.size)


def _uniform01(raw: np.uint32) -> np.float32:
    return np.float32(raw) / _TWO32


def _normal_accepts(table: _Ziggurat, i: int, x: np.float32, raw: np.uint32) -> bool:
    """Whether to accept a point of layer i outside the layer's rectangle. All in float32."""
    y01 = _uniform01(raw)
    rise = table.y[i + 1] - table.y[i]
    y = table.y[i] + y01 * rise
    chord = (table.x[i] - table.x[i + 1]) * y01 - (table.x[i] - x)
    tangent = y - (table.y[i] + (table.x[i] - x) * table.y[i] * table.x[i])
    above_upper, above_lower = (chord, tangent) if table.x[i] >= 1 else (tangent, chord)
    if above_upper >= 0:
        return False
    return bool(above_lower < 0 or y < np.exp(-(x * x / np.float32(2))))


def _normal_tail(raw: Uint32) -> tuple[np.float32, int]:
    """Draw from the tail; returns the number and the count of outputs used."""
    start = _normal_table().x[1]
    position = 0
    while True:
        x, used = _exponential(raw[position:])
        position += used
        y, used = _exponential(raw[position:])
        position += used
        x = np.float32(x / start)
        if 2 * y > x * x:
            return np.float32(x + start), position


def _exponential(raw: Uint32) -> tuple[np.float32, int]:
    """Draw an exponential number of mean 1; returns it and the count of outputs used."""
    table = _exponential_table()
    shift = np.float32(0)
    position = 0
    while True:
        i = int(raw[position] & 255)
        x = np.float32(raw[position] >> 8) * _TWO24 * table.x[i]
        position += 1
        if x < table.x[i + 1]:
            return np.float32(shift + x), position
        if i == 0:
            shift = np.float32(shift + table.x[1])
            continue
        y01 = _uniform01(raw[position])
        position += 1
        y = table.y[i] + y01 * (table.y[i + 1] - table.y[i])
        upper = (table.x[i] - table.x[i + 1]) * y01 - (table.x[i] - x)
        lower = y - (table.y[i + 1] + (table.x[i + 1] - x) * table.y[i + 1])
        if upper < 0 and (lower < 0 or y < np.exp(-x)):
            return np.float32(shift + x), position
