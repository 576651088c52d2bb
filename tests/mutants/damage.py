"""Damage that does not depend on the format: bits, bytes, integers, pieces."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

BOUNDARIES = (
    0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0xFFFFFF,
    0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 2, (1 << 64) - 1,
)  # fmt: skip
_HEAD = 200
_LONGEST = 1 << 20


def position(rng: random.Random, size: int) -> int:
    """A random position of a byte; half of them are in the head, which has most structure."""
    limit = min(size, _HEAD) if rng.random() < 0.5 else size
    return rng.randrange(max(limit, 1))


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[position(rng, len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[position(rng, len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _integer(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    width = rng.choice((1, 2, 4, 8))
    start = position(rng, len(data))
    put_integer(rng, data, start - start % rng.choice((1, width)), width)


def put_integer(rng: random.Random, data: bytearray, start: int, width: int) -> None:
    """Write a boundary value, or a value near the old one, in either byte order."""
    old = int.from_bytes(data[start : start + width], "little")
    value = rng.choice(BOUNDARIES) if rng.random() < 0.7 else old + rng.choice((-8, -1, 1, 8, 64))
    order = "big" if rng.random() < 0.3 else "little"
    data[start : start + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, order)


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _remove(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = position(rng, len(data))
    del data[start : start + rng.choice((1, 2, 4, 8, 64, 512))]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = position(rng, len(data))
    piece = data[start : start + rng.choice((1, 4, 16, 256))]
    if len(data) < _LONGEST:
        data[start:start] = piece * rng.choice((1, 1, 2, 20, 300))


def _insert(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = position(rng, len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 8, 32)))


def _clear(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = position(rng, len(data))
    piece = data[start : start + rng.choice((2, 4, 8, 16, 128, 1024))]
    data[start : start + len(piece)] = rng.choice((b"\0", b"\xff")) * len(piece)


def _copy(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, target = position(rng, len(data)), position(rng, len(data))
    piece = data[start : start + rng.choice((2, 4, 8, 16, 64))]
    data[target : target + len(piece)] = piece


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    start = position(rng, len(other))
    piece = other[start : start + rng.choice((8, 64, 512, len(other)))]
    target = position(rng, len(data))
    end = target + len(piece) if rng.random() < 0.5 else target
    data[target:end] = piece


Step = Callable[[random.Random, bytearray, Sequence[bytes]], None]
_STEPS: tuple[Step, ...] = (
    _flip, _flip, _flip, _set, _set, _integer, _integer, _integer,
    _cut, _remove, _repeat, _insert, _clear, _copy, _splice,
)  # fmt: skip


def damage(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
    """Damage a sample in one or a few places."""
    data = bytearray(sample)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_STEPS)(rng, data, others)
    return bytes(data)
