"""Counter-based random numbers: Philox4x32-10 of Random123 (Salmon et al., SC 2011).

A number is a function of its name, not of earlier draws. So image i of iteration t has the same
crop, and unit j the same dropout, on every worker, shard and device. The layout below is a
contract: the C++ and CUDA versions produce the same bits.

    key      word 0  seed, low 32 bits           word 1  seed, high 32 bits
    counter  word 0  block number b              word 1  sample number, low 32 bits
             word 2  sample number, high 32 bits word 3  stream (of a layer; see `stream_of`)

Draw n of a sample is word n % 4 of block n // 4. Images are numbered through the whole run: sample
iteration * batch_size + index. A sample may also be named by two small numbers, such as an epoch
and a part of it, as the upper and the lower half.

    uniform   float32 in [0, 1): (x >> 8) * 2**-24, exact in float32
    integer   in [0, high):      (x * high) >> 32 in 64 bits, for high up to 2**32
    normal    from words a, b:   in float64, r = sqrt(-2 ln(((a >> 8) + 1) * 2**-24)) and
              w = 2 pi (b >> 8) * 2**-24; draws 2k and 2k+1 are r cos w and r sin w
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
IntLike = int | npt.NDArray[Any]

ROUNDS = 10
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_M0, _M1 = np.uint64(_MULTIPLIER_0), np.uint64(_MULTIPLIER_1)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Temporaries of this many blocks fit into the cache; the result does not depend on it.
_CHUNK = 8192
# Up to this many blocks are computed one by one in Python.
_FEW = 16


def philox4x32(counter: npt.ArrayLike, key: npt.ArrayLike) -> Words:
    """Encrypt counters under a key.

    Shapes: counter (..., 4), key (2,), result (..., 4); all uint32.
    """
    counters = np.asarray(counter, dtype=np.uint32)
    k0, k1 = (int(word) for word in np.asarray(key, dtype=np.uint32))
    flat = counters.reshape(-1, 4)
    if len(flat) <= _FEW:
        blocks = [_block(block, k0, k1) for block in flat.tolist()]
        return np.array(blocks, np.uint32).reshape(counters.shape)
    result = np.empty_like(flat)
    for start in range(0, len(flat), _CHUNK):
        part = slice(start, start + _CHUNK)
        _rounds(flat[part], k0, k1, result[part])
    return result.reshape(counters.shape)


def _block(counter: list[int], k0: int, k1: int) -> tuple[int, int, int, int]:
    """Encrypt one counter in Python's integers, which takes less time than NumPy's calls."""
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        p0, p1 = _MULTIPLIER_0 * c0, _MULTIPLIER_1 * c2
        c0, c1 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF
        c2, c3 = (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _rounds(counter: Words, k0: int, k1: int, out: Words) -> None:
    c0, c1, c2, c3 = (counter[:, word].astype(np.uint64) for word in range(4))
    for round_number in range(ROUNDS):
        round_k0 = np.uint64((k0 + round_number * _W0) & 0xFFFFFFFF)
        round_k1 = np.uint64((k1 + round_number * _W1) & 0xFFFFFFFF)
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0 = (p1 >> _HALF) ^ c1 ^ round_k0
        c2 = (p0 >> _HALF) ^ c3 ^ round_k1
        c1 = p1 & _MASK
        c3 = p0 & _MASK
    for word, value in enumerate((c0, c1, c2, c3)):
        out[:, word] = value


def stream_of(name: str) -> int:
    """The stream number of a name, such as that of a layer: its CRC-32, which never changes."""
    return zlib.crc32(name.encode())


def words(seed: int, stream: int, upper: IntLike, lower: IntLike, count: int) -> Words:
    """Draw `count` 32-bit words for every sample; `upper` and `lower` are the halves of its number.

    Shapes: upper and lower are integers or arrays that broadcast together to a shape (...); the
    result is (..., count).
    """
    uppers, lowers = np.broadcast_arrays(
        np.asarray(upper, dtype=np.uint32), np.asarray(lower, dtype=np.uint32)
    )
    blocks = -(-count // 4)
    counter = np.empty((*lowers.shape, blocks, 4), dtype=np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = lowers[..., None]
    counter[..., 2] = uppers[..., None]
    counter[..., 3] = np.uint32(stream & 0xFFFFFFFF)
    drawn = philox4x32(counter, (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return drawn.reshape(*lowers.shape, 4 * blocks)[..., :count]


def to_integers(drawn: Words, high: IntLike) -> npt.NDArray[np.int64]:
    """Map words to [0, high) by the upper half of a 64-bit product: no division, no rejection.

    Some values are more probable than others, by at most high / 2**32, which is negligible.
    """
    product = drawn.astype(np.uint64) * np.asarray(high, dtype=np.uint64)
    return (product >> _HALF).astype(np.int64)


def to_normal(drawn: Words) -> npt.NDArray[np.float64]:
    """Map pairs of words to pairs of standard normal numbers (Box-Muller).

    Shapes: drawn (..., 2 n), result (..., 2 n).
    """
    bits = (drawn >> np.uint32(8)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((bits[..., 0::2] + 1.0) * 2.0**-24))
    angle = 2.0 * np.pi * 2.0**-24 * bits[..., 1::2]
    result = np.empty(drawn.shape, dtype=np.float64)
    result[..., 0::2] = radius * np.cos(angle)
    result[..., 1::2] = radius * np.sin(angle)
    return result


def integers(
    seed: int, stream: int, upper: IntLike, lower: IntLike, count: int, high: int
) -> npt.NDArray[np.int64]:
    """Draw `count` integers in [0, high) for every sample. See `words` for the shapes."""
    return to_integers(words(seed, stream, upper, lower, count), high)
