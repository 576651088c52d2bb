"""Reading pages of an LMDB file, many at once or one, and checking every number in them."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.lmdb_file import (
    HEADER,
    KIND,
    MOST_PAGES,
    DamageError,
    KindError,
    PageFile,
    TruncatedError,
)

BRANCH, LEAF = 0x01, 0x02
BIG_VALUE = 0x01
"""Node flag: the value is stored in separate pages; the node has the number of the first."""

_NODE = 8
_PAGE_HEAD = struct.Struct("<Q2xHHH")
_NODE_HEAD = struct.Struct("<4H")
_POINTER = struct.Struct("<H")
_NAMED_DATABASE, _DUPLICATES = 0x02, 0x04

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nodes:
    """The nodes of pages of one kind, in the order of the pages.

    `starts` are the offsets of keys in `buffer`; `words` are the lower 32 bits of a node, which are
    the size of its value, or a part of the number of its child page.

    Shapes: buffer (bytes,); numbers, page_flags, uppers, counts (pages,); the others (nodes,).
    """

    buffer: npt.NDArray[np.uint8]
    numbers: Ints
    page_flags: Ints
    uppers: Ints
    counts: Ints
    page_of: Ints
    pointers: Ints
    starts: Ints
    key_sizes: Ints
    words: Ints
    flags: Ints

    def children(self) -> Ints:
        """The numbers of the child pages of branch nodes. Shapes: result (nodes,)."""
        return self.words | self.flags << 32

    def first_nodes(self) -> Ints:
        """The first node of every page. Shapes: result (pages,)."""
        return np.cumsum(self.counts) - self.counts

    def after(self, count: int) -> Nodes:
        """The nodes without the first `count`, which are in the first page."""
        if not count:
            return self
        counts = self.counts.copy()
        counts[0] -= count
        nodes = [
            part[count:]
            for part in (
                self.page_of, self.pointers, self.starts, self.key_sizes, self.words, self.flags
            )
        ]  # fmt: skip
        return Nodes(self.buffer, self.numbers, self.page_flags, self.uppers, counts, *nodes)

    def keys(self) -> bytes:
        """The concatenated keys."""
        ends = np.cumsum(self.key_sizes)
        places = np.arange(ends[-1]) + np.repeat(
            self.starts - ends + self.key_sizes, self.key_sizes
        )
        return bytes(self.buffer[places])

    def key(self, node: int) -> bytes:
        """The key of a node."""
        start = int(self.starts[node])
        return bytes(self.buffer[start : start + int(self.key_sizes[node])])

    def check(self, wrong: npt.NDArray[np.bool_], text: str) -> None:
        """Raise a DamageError with the page of the first wrong node. Shapes: wrong (nodes,)."""
        if wrong.any():
            page = self.numbers[self.page_of[wrong.argmax()]]
            raise DamageError(text.format(int(page)))


def read_pages(file: PageFile, numbers: Ints) -> npt.NDArray[np.uint8]:
    """Pages in the given order, with 8 zero bytes after the last. Shapes: result (bytes,)."""
    size = file.page_size
    buffer = np.zeros(len(numbers) * size + 8, np.uint8)
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    bounds = [0, *breaks.tolist(), len(numbers)]
    for first, stop in itertools.pairwise(bounds):
        if first < stop:
            data = file.read(int(numbers[first]) * size, (stop - first) * size)
            buffer[first * size : stop * size] = np.frombuffer(data, np.uint8)
    return buffer


def read_nodes(file: PageFile, numbers: Ints, kind: int, last_page: int) -> Nodes:
    """Read pages of one kind and check their headers, pointers, nodes and keys.

    Raises:
        DamageError: a page is not of this kind, or a number in it is impossible.
    """
    outside = (numbers < 2) | (numbers > last_page)
    if outside.any():
        raise DamageError(f"page {int(numbers[outside.argmax()])} is outside the file")
    size = file.page_size
    buffer = read_pages(file, numbers)
    words = buffer[: len(numbers) * size].view("<u2")
    headers = words.reshape(len(numbers), size // 2)[:, : HEADER // 2].astype(np.int64)
    own_numbers = headers[:, 0] | headers[:, 1] << 16 | headers[:, 2] << 32 | headers[:, 3] << 48
    page_flags, lower, upper = headers[:, 5], headers[:, 6], headers[:, 7]
    overwritten = (own_numbers != numbers) | (page_flags & KIND != kind)
    if overwritten.any():
        raise DamageError(f"page {int(numbers[overwritten.argmax()])} is overwritten")
    impossible = (lower <= HEADER) | (lower > upper) | (upper > size) | (lower % 2 != 0)
    if impossible.any():
        raise DamageError(f"page {int(numbers[impossible.argmax()])} has impossible bounds")
    counts = (lower - HEADER) // 2
    page_of = np.repeat(np.arange(len(numbers)), counts)
    entry = np.arange(len(page_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    pointers = words[page_of * (size // 2) + HEADER // 2 + entry].astype(np.int64)
    lost = (pointers < upper[page_of]) | (pointers > size - _NODE) | (pointers % 2 != 0)
    if lost.any():
        raise DamageError(f"a node of page {int(numbers[page_of[lost.argmax()]])} is outside it")
    first = page_of * (size // 2) + pointers // 2
    low, high, flags, key_sizes = (words[first + word].astype(np.int64) for word in range(4))
    starts = page_of * size + pointers + _NODE
    nodes = Nodes(
        buffer, numbers, page_flags, upper, counts, page_of, pointers, starts, key_sizes,
        low | high << 16, flags,
    )  # fmt: skip
    nodes.check(pointers + _NODE + key_sizes > size, "a key of page {} is outside it")
    return nodes


def check_records(nodes: Nodes) -> None:
    """Check that all nodes of leaf pages are records.

    Raises:
        KindError: a node is a named database or a set of duplicates.
        DamageError: a node has impossible flags.
    """
    wrong = nodes.flags & ~BIG_VALUE != 0
    if not wrong.any():
        return
    node = int(wrong.argmax())
    flags = int(nodes.flags[node])
    if flags == _NAMED_DATABASE:
        raise KindError(f"{nodes.key(node)!r} is a named database within it")
    if flags & _DUPLICATES:
        raise KindError(f"it has duplicates of the key {nodes.key(node)!r}")
    nodes.check(wrong, f"a node of page {{}} has the flags {flags:#x}")


def check_values(nodes: Nodes, page_size: int, last_page: int, length: int) -> tuple[Ints, Ints]:
    """Check the positions of the values of leaf nodes.

    Returns the first pages and the numbers of pages of values that are stored in separate pages.

    Raises:
        DamageError: a value is outside its page or the file, or nodes overlap.
    """
    big = (nodes.flags & BIG_VALUE) != 0
    inline = np.where(big, 8, nodes.words)
    ends = nodes.pointers + _NODE + nodes.key_sizes + inline
    nodes.check(ends > page_size, "a value of page {} is outside it")
    check_tiles(nodes, ends, page_size)
    places = nodes.starts[big] + nodes.key_sizes[big]
    first = nodes.buffer[places[:, None] + np.arange(8)].view("<i8")[:, 0].astype(np.int64)
    sizes = nodes.words[big]
    counts = (HEADER - 1 + sizes) // page_size + 1
    outside = (first < 2) | (first > last_page - counts + 1)
    if outside.any():
        number = nodes.numbers[nodes.page_of[big][outside.argmax()]]
        raise DamageError(f"a value of page {int(number)} is outside the file")
    needed = int((first * page_size + HEADER + sizes).max(initial=0))
    if needed > length:
        raise TruncatedError(length, needed)
    return first, counts


def branch_ends(nodes: Nodes) -> Ints:
    """The ends of the nodes of branch pages, in their pages. Shapes: result (nodes,)."""
    return nodes.pointers + _NODE + nodes.key_sizes


def check_node_sizes(nodes: Nodes, page_size: int) -> None:
    """Check that any two nodes of a leaf page fit into a page, as liblmdb expects."""
    inline = np.where((nodes.flags & BIG_VALUE) != 0, 8, nodes.words)
    too_large = _NODE + nodes.key_sizes + inline > (page_size - HEADER) // 2
    nodes.check(too_large, "a node of page {} is too large")


def value_offsets(nodes: Nodes, first: Ints, page_size: int) -> Ints:
    """The positions of the values of leaf nodes in the file. Shapes: result (nodes,).

    `first` are the first pages of values that are stored in separate pages.
    """
    in_page = nodes.starts + nodes.key_sizes - nodes.page_of * page_size
    offsets = nodes.numbers[nodes.page_of] * page_size + in_page
    offsets[(nodes.flags & BIG_VALUE) != 0] = first * page_size + HEADER
    return offsets


def check_tiles(nodes: Nodes, ends: Ints, page_size: int) -> None:
    """Check that the nodes of a page fill it from its upper bound, without overlap or gap.

    `ends` are the ends of the nodes in their pages. Shapes: ends (nodes,).
    """
    if not len(ends):
        return
    lowest = np.minimum.reduceat(nodes.pointers, nodes.first_nodes())
    if (lowest != nodes.uppers).any():
        number = nodes.numbers[(lowest != nodes.uppers).argmax()]
        raise DamageError(f"page {int(number)} has impossible bounds")
    # liblmdb puts new nodes before the others, so keys that were added in order are reversed.
    order: slice | Ints = slice(None, None, -1)
    wrong = _not_at_next(nodes, ends, order, page_size)
    if wrong.any():
        order = np.lexsort((nodes.pointers, nodes.page_of))
        wrong = _not_at_next(nodes, ends, order, page_size)
    if wrong.any():
        number = nodes.numbers[nodes.page_of[order][wrong.argmax()]]
        raise DamageError(f"the nodes of page {int(number)} overlap or leave gaps")


def _not_at_next(
    nodes: Nodes, ends: Ints, order: slice | Ints, page_size: int
) -> npt.NDArray[np.bool_]:
    """Whether a node does not end at the next one, or the last one at the end of its page."""
    pointers, page_of = nodes.pointers[order], nodes.page_of[order]
    following = np.full(len(pointers), page_size)
    following[:-1] = np.where(page_of[1:] == page_of[:-1], pointers[1:], page_size)
    return np.asarray((ends[order] + 1) // 2 * 2 != following)


class Node(NamedTuple):
    """One node of a leaf page: its key, the size of its value, and the end of the key."""

    key: bytes
    flags: int
    size: int
    end: int


def count_nodes(page: bytes, number: int, kind: int) -> int:
    """Check the header of one page; returns the number of its nodes."""
    own_number, flags, lower, upper = _PAGE_HEAD.unpack_from(page)
    if own_number != number or flags & KIND != kind:
        raise DamageError(f"page {number} is overwritten")
    if not HEADER < lower <= upper <= len(page) or lower % 2:
        raise DamageError(f"page {number} has impossible bounds")
    return int(lower - HEADER) // 2


def leaf_node(page: bytes, entry: int) -> Node:
    """One node of a leaf page whose header has been checked."""
    (pointer,) = _POINTER.unpack_from(page, HEADER + 2 * entry)
    if pointer > len(page) - _NODE:
        raise DamageError("a node is outside its page")
    low, high, flags, key_size = _NODE_HEAD.unpack_from(page, pointer)
    end, size = pointer + _NODE + key_size, low | high << 16
    if flags & ~BIG_VALUE or end + (8 if flags else size) > len(page):
        raise DamageError("a value is outside its page")
    return Node(page[pointer + _NODE : end], flags, size, end)


def branch_node(page: bytes, entry: int) -> tuple[bytes, int]:
    """The key and the child page of a node of a branch page whose header has been checked."""
    (pointer,) = _POINTER.unpack_from(page, HEADER + 2 * entry)
    if pointer > len(page) - _NODE:
        raise DamageError("a node is outside its page")
    low, high, top, key_size = _NODE_HEAD.unpack_from(page, pointer)
    return page[pointer + _NODE : pointer + _NODE + key_size], low | high << 16 | top << 32


def value_page(page: bytes, node: Node) -> int:
    """The first page of a value that is stored in separate pages."""
    (number,) = struct.unpack_from("<Q", page, node.end)
    if not 2 <= number < MOST_PAGES:
        raise DamageError(f"the value of {node.key!r} is outside the file")
    return int(number)


def read_value(file: PageFile, page: bytes, node: Node) -> bytes:
    """The value of a node of a leaf page.

    Raises:
        DamageError: the separate pages are not those of this value.
    """
    if not node.flags:
        return page[node.end : node.end + node.size]
    return file.value(value_page(page, node) * file.page_size + HEADER, node.size)


def has_other_flags(page: bytes, kind: int) -> bool:
    """Whether a page has flags other than its kind, as pages of a transaction do."""
    return bool(_PAGE_HEAD.unpack_from(page)[1] != kind)


def packed(values: Ints) -> memoryview:
    """Values in 4 bytes each if they fit, else in 8."""
    return values.astype(unsigned(int(values.max(initial=0)))).data


def unsigned(greatest: int) -> type[np.uint32] | type[np.uint64]:
    """The type for numbers up to `greatest`."""
    return np.uint32 if greatest < 1 << 32 else np.uint64
