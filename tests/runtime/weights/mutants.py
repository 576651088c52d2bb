"""Damaged copies of a file: cut short, or with bits turned over."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prototxt_gen.errors import SnapshotError


def cut(data: bytes) -> Iterator[bytes]:
    """The file ended at each of its bytes."""
    for size in range(len(data)):
        yield data[:size]


def flipped(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """`count` files with one to four bits turned over, half of them among the first 200 bytes."""
    rng = random.Random(seed)
    for number in range(count):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(min(len(data), 200) if number % 2 else len(data))
            mutant[place] ^= 1 << rng.randrange(8)
        yield bytes(mutant)


def survive(mutants: Iterable[bytes], read: Callable[[Path], object], path: Path) -> int:
    """Read each mutant: what is wrong is a SnapshotError, and memory stays small.

    Returns how many were refused.
    """
    refused = 0
    tracemalloc.start()
    try:
        for mutant in mutants:
            # A new file each time: what was read before may still be mapped.
            path.unlink(missing_ok=True)
            path.write_bytes(mutant)
            try:
                read(path)
            except SnapshotError:
                refused += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20, f"{peak} bytes for a file of some kilobytes"
    return refused
