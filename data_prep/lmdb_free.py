"""The table of free pages of an LMDB file: lists of page numbers, by the commit that freed them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_prep.lmdb_file import HEADER, DamageError, Meta, PageFile, check_depth
from data_prep.lmdb_keys import ordered_numbers
from data_prep.lmdb_pages import (
    BIG_VALUE,
    LEAF,
    Ints,
    Nodes,
    check_records,
    check_value_header,
    check_values,
)
from data_prep.lmdb_tree import leaf_pages, read_chunks

_NUMBERED = 0x08
_ENVIRONMENT_FLAGS = 0x4001
"""Flags that liblmdb keeps with those of this table: no folder, fixed address."""
_NONE = np.empty(0, np.int64)


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


def check_free_table(meta: Meta) -> None:
    """Check the flags and the depth of the table.

    Raises:
        DamageError: they are impossible.
    """
    if meta.free.flags & ~_ENVIRONMENT_FLAGS != _NUMBERED:
        raise DamageError(f"its table of free pages has the flags {meta.free.flags:#x}")
    check_depth(meta.free)


def check_in_use(free: Ints, numbers: Ints) -> None:
    """Check that none of some pages is free.

    Raises:
        DamageError: one is.
    """
    if len(free) and len(numbers):
        nearest = free[np.minimum(np.searchsorted(free, numbers), len(free) - 1)]
        if (nearest == numbers).any():
            number = numbers[(nearest == numbers).argmax()]
            raise DamageError(f"page {int(number)} is in use and in the list of free pages")


def free_lists(file: PageFile, meta: Meta, nodes: Nodes) -> Iterator[tuple[Ints, Ints]]:
    """The lists in leaf pages of the table, each with the pages that it has of its own.

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
            pages = np.arange(number, number + check_value_header(data, number, least))
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
    """A list, which begins with its length and descends; None if it is damaged."""
    if not data or len(data) % 8:
        return None
    values = np.frombuffer(data, "<u8")
    if values[0] >= len(values):
        return None
    values = values[1 : int(values[0]) + 1]
    if (values[1:] >= values[:-1]).any() or (values < 2).any() or (values > meta.last_page).any():
        return None
    return values.astype(np.int64)
