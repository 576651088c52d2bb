"""Checks an LMDB file before liblmdb writes to it.

liblmdb does not check its file: damage in a page, a flag or a list of free pages ends the process
with a signal, or causes records to be overwritten. So all that liblmdb may use is checked: the
pages of records and those above them, the table of free pages, and that no page is used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.lmdb_file import (
    HEADER,
    OVERFLOW,
    DamageError,
    Meta,
    PageFile,
    Table,
    TruncatedError,
    changes_too_fast,
    check_main_table,
    check_value_header,
    corrupt,
)
from data_prep.lmdb_pages import (
    BRANCH,
    LEAF,
    Ints,
    Nodes,
    branch_ends,
    check_node_sizes,
    check_records,
    check_tiles,
    check_values,
    has_other_flags,
    leaf_node,
    value_page,
)
from data_prep.lmdb_tree import (
    check_free_table,
    check_once,
    free_lists,
    hash_ordered_keys,
    leaves_from,
    read_chunks,
    root_page,
)
from prototxt_gen.integers import ceil_div

_ATTEMPTS = 20


Bits = npt.NDArray[np.uint8]


def check_for_writing(folder: Path) -> Bits:
    """Check everything in a database that liblmdb uses when it adds records.

    Returns a bit for every page that is used or free.

    Raises:
        DataError: the database is damaged, is of another kind, or changes while it is read.
    """
    try:
        file = PageFile(folder)
        for _ in range(_ATTEMPTS):
            meta, _headers = file.newest()
            try:
                pages = _Check(file, meta).run()
            except DamageError:
                if file.keeps(meta):
                    raise
                continue
            if file.keeps(meta):
                return pages
    except DamageError as damage:
        raise corrupt(folder, damage) from None
    raise changes_too_fast(folder)


def check_replaced(folder: Path, keys: list[bytes], pages: Bits) -> None:
    """Check the pages of values that are about to be replaced, which liblmdb then frees.

    `pages` has a bit for every page that is used or free.

    Raises:
        DataError: a value has pages that belong to others.
    """
    try:
        file = PageFile(folder)
        meta, _ = file.newest()
        for key in keys:
            leaf = next(leaves_from(file, meta, key), None)
            if leaf is None or leaf.entry == leaf.count:
                continue
            node = leaf_node(leaf.page, leaf.entry)
            if node.key != key or not node.flags:
                continue
            first = value_page(leaf.page, node)
            least = (HEADER - 1 + node.size) // file.page_size + 1
            header = file.read(first * file.page_size, HEADER)
            count = check_value_header(header, first, least)
            if has_other_flags(header, OVERFLOW):
                raise DamageError(f"page {first} is overwritten")
            # A value that was replaced by a shorter one may have more pages than it needs.
            if first + count > 8 * len(pages) or _any_bit(pages, first + least, first + count):
                raise DamageError(f"the value of {key!r} has pages of others")
    except DamageError as damage:
        raise corrupt(folder, damage) from None


def _any_bit(bits: Bits, start: int, stop: int) -> bool:
    first = start // 8 * 8
    part = np.unpackbits(bits[first // 8 : ceil_div(stop, 8)])
    return bool(part[start - first : stop - first].any())


class _Check:
    """One check of a committed state."""

    def __init__(self, file: PageFile, meta: Meta) -> None:
        self._file, self._meta = file, meta
        self._length = file.length()
        pages = min(meta.last_page + 1, ceil_div(self._length, file.page_size))
        self._used: npt.NDArray[np.bool_] = np.zeros(pages, np.bool_)
        self._uses = 2
        self._used[:2] = True

    def run(self) -> Bits:
        """Check both tables and the use of pages; returns a bit for every page that has one.

        Raises:
            DamageError: the state is damaged.
        """
        check_main_table(self._meta)
        self._check_records()
        free = self._free_pages()
        self._check_free_pages(free)
        self._used[free[free < len(self._used)]] = True
        return np.packbits(self._used)

    def _use(self, first: Ints, counts: Ints | None = None) -> None:
        """Mark pages as used; `_check_free_pages` detects pages that were marked twice."""
        if counts is not None:
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            first = np.repeat(first, counts) + within
        self._used[first] = True
        self._uses += len(first)

    def _check_records(self) -> None:
        last: bytes | None = None
        count = 0
        for nodes, separators in self._leaves(self._meta.main, 2, bytes):
            check_records(nodes)
            self._use(*self._values(nodes))
            hash_ordered_keys(nodes, last)
            last = _check_separators(nodes, separators, last, bytes)
            count += len(nodes.starts)
        if count != self._meta.main.entries:
            raise DamageError(f"{count} records found of {self._meta.main.entries}")

    def _values(self, nodes: Nodes) -> tuple[Ints, Ints]:
        check_node_sizes(nodes, self._file.page_size)
        return check_values(nodes, self._file.page_size, self._meta.last_page, self._length)

    def _leaves(
        self, table: Table, least: int, rank: Callable[[bytes], Any]
    ) -> Iterator[tuple[Nodes, list[bytes | None]]]:
        """The leaf pages of a table with the keys that lead to them; None for the first page.

        `least` is the smallest number of children of a branch page.
        """
        numbers = root_page(self._meta, table)
        separators: list[bytes | None] = [None] * len(numbers)
        for _ in range(table.depth - 1):
            children, below = [], []
            for nodes, above in self._chunks(numbers, separators, BRANCH):
                nodes.check(nodes.counts[nodes.page_of] < least, "page {} has a single child")
                check_tiles(nodes, branch_ends(nodes), self._file.page_size)
                keys: list[bytes | None] = [nodes.key(node) for node in range(len(nodes.starts))]
                for node, separator in zip(nodes.first_nodes().tolist(), above):
                    keys[node] = separator
                children.append(nodes.children())
                below += keys
            numbers, separators = np.concatenate(children), below
            check_once(numbers)
        yield from self._chunks(numbers, separators, LEAF)

    def _chunks(
        self, numbers: Ints, separators: list[bytes | None], kind: int
    ) -> Iterator[tuple[Nodes, list[bytes | None]]]:
        start = 0
        for nodes in read_chunks(self._file, numbers, kind, self._meta):
            stop = start + len(nodes.numbers)
            marked = nodes.page_flags != kind
            if marked.any():
                raise DamageError(f"page {int(nodes.numbers[marked.argmax()])} is overwritten")
            self._use(nodes.numbers)
            yield nodes, separators[start:stop]
            start = stop

    def _free_pages(self) -> Ints:
        """Check the table of free pages; returns their numbers. Shapes: result (pages,)."""
        check_free_table(self._meta)
        lists = [np.empty(0, np.int64)]
        last: bytes | None = None
        count = 0
        for nodes, separators in self._leaves(self._meta.free, 1, _number):
            check_node_sizes(nodes, self._file.page_size)
            for numbers, pages in free_lists(self._file, self._meta, nodes):
                if len(pages) and pages[-1] >= len(self._used):
                    raise TruncatedError(self._length, (int(pages[-1]) + 1) * self._file.page_size)
                self._use(pages)
                lists.append(numbers)
            last = _check_separators(nodes, separators, last, _number)
            count += len(nodes.starts)
        if count != self._meta.free.entries:
            raise DamageError(f"{count} lists of free pages found of {self._meta.free.entries}")
        return np.concatenate(lists)

    def _check_free_pages(self, free: Ints) -> None:
        """Check that every page has one use, and that pages after the end of the file are free."""
        check_once(free)
        inside = free[free < len(self._used)]
        if np.count_nonzero(self._used) != self._uses or self._used[inside].any():
            raise DamageError("a page is used twice")
        if len(free) - len(inside) != max(0, self._meta.last_page + 1 - len(self._used)):
            raise TruncatedError(self._length, (self._meta.last_page + 1) * self._file.page_size)


def _number(key: bytes) -> int:
    if len(key) != 8:
        raise DamageError("a key of the table of free pages is no number")
    return int.from_bytes(key, "little")


def _check_separators(
    nodes: Nodes, separators: list[bytes | None], last: bytes | None, rank: Callable[[bytes], Any]
) -> bytes | None:
    """Check that the keys of every page are between the key that leads to it and the next one.

    Returns the last key.
    """
    first = nodes.first_nodes().tolist()
    for page, (node, separator) in enumerate(zip(first, separators)):
        if separator is not None and last is not None:
            between = rank(last) < rank(separator) <= rank(nodes.key(node))
            if not between:
                number = int(nodes.numbers[page])
                raise DamageError(f"page {number} has keys that belong elsewhere")
        last = nodes.key(node + int(nodes.counts[page]) - 1)
    return last
