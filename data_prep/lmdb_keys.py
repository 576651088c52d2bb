"""Keys of an LMDB file: their order, and 32-bit hashes that stand for them in an index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.lmdb_pages import Nodes

_MASK = (1 << 64) - 1
_FACTOR = 0xD6E8FEB86659FD93
"""An odd number whose product spreads the bits of a word over the upper half."""
_SHIFT = 32

Words = npt.NDArray[np.uint64]


def hash_key(key: bytes) -> int:
    """The hash of one key, of 32 bits."""
    value = len(key)
    for start in range(0, len(key), 8):
        word = int.from_bytes(key[start : start + 8].ljust(8, b"\0"), "big")
        value = (value ^ word) * _FACTOR & _MASK
        value ^= value >> _SHIFT
    return value >> _SHIFT


def hash_ordered_keys(nodes: Nodes, previous: bytes | None) -> npt.NDArray[np.uint32]:
    """The hashes of the keys of pages, which must increase, from after the key before them.

    Raises:
        DamageError: a key is empty, or is not greater than the one before it.
    """
    sizes = nodes.key_sizes
    nodes.check(sizes == 0, "page {} holds an empty key")
    hashes = sizes.astype(np.uint64)
    undecided = np.ones(len(sizes) - 1, np.bool_)
    wrong = np.zeros(len(sizes), np.bool_)
    for word in range((int(sizes.max()) + 7) // 8):
        longer = sizes > 8 * word
        words = _words(nodes, word, longer)
        mixed = (hashes ^ words) * np.uint64(_FACTOR)
        mixed ^= mixed >> np.uint64(_SHIFT)
        hashes = np.where(longer, mixed, hashes)
        if undecided.any():
            wrong[1:] |= undecided & (words[1:] < words[:-1])
            undecided &= words[1:] == words[:-1]
    wrong[1:] |= undecided & (sizes[1:] <= sizes[:-1])
    wrong[0] = previous is not None and nodes.key(0) <= previous
    nodes.check(wrong, "the keys of page {} are out of order")
    return (hashes >> np.uint64(_SHIFT)).astype(np.uint32)


def _words(nodes: Nodes, word: int, longer: npt.NDArray[np.bool_]) -> Words:
    """Eight bytes of every key, the first of them the highest; zeros after its end."""
    # Keys begin at even offsets, so a view in steps of two bytes has a word for each.
    view = np.ndarray((len(nodes.buffer) // 2 - 3,), ">u8", nodes.buffer, strides=(2,))
    if longer.all():
        words = view[nodes.starts // 2 + 4 * word].astype(np.uint64)
    else:
        words = np.zeros(len(longer), np.uint64)
        words[longer] = view[nodes.starts[longer] // 2 + 4 * word]
    missing = 8 * np.clip(8 * (word + 1) - nodes.key_sizes, 0, 7).astype(np.uint64)
    if missing.any():
        words = words >> missing << missing
    return words


def ordered_numbers(nodes: Nodes) -> npt.NDArray[np.int64]:
    """The keys of the table of free pages, which are increasing numbers of 8 bytes.

    Raises:
        DamageError: they are not.
    """
    nodes.check(nodes.key_sizes != 8, "a key of page {} is no number")
    view = np.ndarray((len(nodes.buffer) // 2 - 3,), "<i8", nodes.buffer, strides=(2,))
    keys = view[nodes.starts // 2].astype(np.int64)
    wrong = np.zeros(len(keys), np.bool_)
    wrong[1:] = keys[1:] <= keys[:-1]
    nodes.check(wrong | (keys < 0), "the keys of page {} are out of order")
    return keys
