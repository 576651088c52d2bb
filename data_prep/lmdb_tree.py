"""The B-trees of an LMDB file: their pages in order, their keys, and the table of free pages.

The table of free pages has a list of page numbers for each commit that freed pages.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.lmdb_file import (
    HEADER,
    NO_ROOT,
    DamageError,
    Meta,
    PageFile,
    Table,
    check_depth,
    check_value_header,
)
from data_prep.lmdb_pages import (
    BIG_VALUE,
    BRANCH,
    LEAF,
    Ints,
    Nodes,
    branch_node,
    check_records,
    check_values,
    count_nodes,
    leaf_node,
    read_nodes,
)
from prototxt_gen.integers import ceil_div

_CHUNK = 256
_MASK = (1 << 64) - 1
_FACTOR = 0xD6E8FEB86659FD93
"""An odd number whose product spreads the bits of a word over the upper half."""
_SHIFT = 32
_NUMBERED = 0x08
_ENVIRONMENT_FLAGS = 0x4001
"""Flags that liblmdb stores with those of the free table: no folder, fixed address."""
_NONE = np.empty(0, np.int64)

Words = npt.NDArray[np.uint64]


def leaf_pages(file: PageFile, meta: Meta, table: Table) -> Ints:
    """The numbers of the leaf pages of a tree in the order of their keys. Shape (pages,).

    Raises:
        DamageError: a branch page is damaged, or a page has two places in the tree.
    """
    numbers = root_page(meta, table)
    for _ in range(table.depth - 1):
        chunks = [nodes.children() for nodes in read_chunks(file, numbers, BRANCH, meta)]
        numbers = np.concatenate(chunks)
        check_once(numbers)
    return numbers


def root_page(meta: Meta, table: Table) -> Ints:
    """The root of a tree, if it has one. Shape (0,) or (1,)."""
    if table.root == NO_ROOT:
        return np.empty(0, np.int64)
    if not 2 <= table.root <= meta.last_page:
        raise DamageError(f"page {table.root} is outside the file")
    return np.array([table.root], np.int64)


def read_chunks(file: PageFile, numbers: Ints, kind: int, meta: Meta) -> Iterator[Nodes]:
    """Read and check pages of one kind, `_CHUNK` at a time."""
    for start in range(0, len(numbers), _CHUNK):
        yield read_nodes(file, numbers[start : start + _CHUNK], kind, meta.last_page)


def check_once(numbers: npt.NDArray[np.integer[Any]]) -> None:
    """Check that no page number occurs twice.

    Raises:
        DamageError: one does.
    """
    ordered = np.sort(numbers)
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        raise DamageError(f"page {int(ordered[twice.argmax()])} is used twice")


@dataclass(frozen=True)
class Leaf:
    """A leaf page, the number of its nodes, and the first node of interest."""

    number: int
    page: bytes
    count: int
    entry: int


def leaves_from(file: PageFile, meta: Meta, key: bytes) -> Iterator[Leaf]:
    """The leaf page that would contain `key`, and the leaf pages after it.

    The entry of the first is that of the first key that is not smaller; it may be the count.

    Raises:
        DamageError: a page is damaged.
    """
    if meta.main.root == NO_ROOT:
        return
    path: list[tuple[bytes, int, int]] = []
    number = meta.main.root
    while len(path) < meta.main.depth - 1:
        page, count = _page(file, meta, number, BRANCH)
        path.append((page, count, _child_of(page, count, key)))
        number = branch_node(page, path[-1][2])[1]
    page, count = _page(file, meta, number, LEAF)
    entry = bisect_left(range(count), key, key=lambda place: leaf_node(page, place).key)
    yield Leaf(number, page, count, entry)
    while path:
        parent, children, child = path.pop()
        if child + 1 == children:
            continue
        path.append((parent, children, child + 1))
        number = branch_node(parent, child + 1)[1]
        while len(path) < meta.main.depth - 1:
            page, count = _page(file, meta, number, BRANCH)
            path.append((page, count, 0))
            number = branch_node(page, 0)[1]
        page, count = _page(file, meta, number, LEAF)
        yield Leaf(number, page, count, 0)


def _child_of(page: bytes, count: int, key: bytes) -> int:
    """The entry of the child page that would contain a key; the first key is not used."""
    return bisect_right(range(1, count), key, key=lambda entry: branch_node(page, entry)[0])


def _page(file: PageFile, meta: Meta, number: int, kind: int) -> tuple[bytes, int]:
    if not 2 <= number <= meta.last_page:
        raise DamageError(f"page {number} is outside the file")
    page = file.page(number)
    return page, count_nodes(page, number, kind)


def hash_key(key: bytes) -> int:
    """The hash of one key, of 32 bits."""
    value = len(key)
    for start in range(0, len(key), 8):
        word = int.from_bytes(key[start : start + 8].ljust(8, b"\0"), "big")
        value = (value ^ word) * _FACTOR & _MASK
        value ^= value >> _SHIFT
    return value >> _SHIFT


def hash_ordered_keys(nodes: Nodes, previous: bytes | None) -> npt.NDArray[np.uint32]:
    """The hashes of the keys of pages, which must increase; `previous` is the key before them.

    Shapes: result (nodes,).

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
        DamageError: a key has another size, or they do not increase.
    """
    nodes.check(nodes.key_sizes != 8, "a key of page {} is no number")
    view = np.ndarray((len(nodes.buffer) // 2 - 3,), "<i8", nodes.buffer, strides=(2,))
    keys = view[nodes.starts // 2].astype(np.int64)
    wrong = np.zeros(len(keys), np.bool_)
    wrong[1:] = keys[1:] <= keys[:-1]
    nodes.check(wrong | (keys < 0), "the keys of page {} are out of order")
    return keys


def free_pages(file: PageFile, meta: Meta) -> Ints:
    """The numbers of the free pages in ascending order. Shape (pages,).

    Raises:
        DamageError: the table is damaged.
    """
    check_free_table(meta)
    lists = [_NONE]
    for nodes in read_chunks(file, leaf_pages(file, meta, meta.free), LEAF, meta):
        lists += [numbers for numbers, _ in free_lists(file, meta, nodes)]
    return np.sort(np.concatenate(lists))


def readable_free_pages(file: PageFile, meta: Meta) -> Ints:
    """The free pages; none if their table is damaged, because only a writer needs it."""
    try:
        return free_pages(file, meta)
    except DamageError:
        return _NONE


def check_free_table(meta: Meta) -> None:
    """Check the flags and the depth of the table.

    Raises:
        DamageError: they are not those of such a table.
    """
    if meta.free.flags & ~_ENVIRONMENT_FLAGS != _NUMBERED:
        raise DamageError(f"its table of free pages has the flags {meta.free.flags:#x}")
    check_depth(meta.free)


def check_in_use(free: Ints, numbers: Ints) -> None:
    """Check that none of some pages is free.

    Raises:
        DamageError: a page is in use and free.
    """
    if len(free) and len(numbers):
        nearest = free[np.minimum(np.searchsorted(free, numbers), len(free) - 1)]
        if (nearest == numbers).any():
            number = numbers[(nearest == numbers).argmax()]
            raise DamageError(f"page {int(number)} is in use and in the list of free pages")


def free_lists(file: PageFile, meta: Meta, nodes: Nodes) -> Iterator[tuple[Ints, Ints]]:
    """The lists in leaf pages of the table, each with the pages that store it.

    Raises:
        DamageError: a list is damaged.
    """
    check_records(nodes)
    commits = ordered_numbers(nodes)
    nodes.check((commits < 1) | (commits > meta.txnid), "page {} frees pages of the future")
    first, counts = check_values(nodes, file.page_size, meta.last_page, file.length())
    places = iter(zip(first.tolist(), counts.tolist()))
    for node in range(len(nodes.starts)):
        size, pages = int(nodes.words[node]), _NONE
        if nodes.flags[node] & BIG_VALUE:
            number, least = next(places)
            data = file.read(number * file.page_size, HEADER + size)
            stop = number + check_value_header(data, number, least)
            # Pages that the list does not need are in the file too, as they were written with it.
            if stop > max(number + least, ceil_div(file.length(), file.page_size)):
                raise DamageError(f"page {number} is overwritten")
            pages = np.arange(number, stop)
            data = data[HEADER:]
        else:
            start = int(nodes.starts[node] + nodes.key_sizes[node])
            data = nodes.buffer[start : start + size].tobytes()
        numbers = _list(data, meta)
        if numbers is None:
            page = int(nodes.numbers[nodes.page_of[node]])
            raise DamageError(f"a list of free pages in page {page} is damaged")
        yield numbers, pages


def _list(data: bytes, meta: Meta) -> Ints | None:
    """A list: its length, then page numbers in descending order; None if it is damaged."""
    if not data or len(data) % 8:
        return None
    values = np.frombuffer(data, "<u8")
    if values[0] >= len(values):
        return None
    values = values[1 : int(values[0]) + 1]
    if (values[1:] >= values[:-1]).any() or (values < 2).any() or (values > meta.last_page).any():
        return None
    return values.astype(np.int64)
