"""The B-trees of an LMDB file: their leaf pages in order, and the leaf page of a key."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep.lmdb_file import NO_ROOT, DamageError, Meta, PageFile, Table
from data_prep.lmdb_pages import (
    BRANCH,
    LEAF,
    Ints,
    Nodes,
    branch_node,
    count_nodes,
    leaf_node,
    read_nodes,
)

_CHUNK = 256


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
        raise DamageError(f"page {table.root} lies outside the file")
    return np.array([table.root], np.int64)


def read_chunks(file: PageFile, numbers: Ints, kind: int, meta: Meta) -> Iterator[Nodes]:
    """Read and check pages of one kind, some hundred at once."""
    for start in range(0, len(numbers), _CHUNK):
        yield read_nodes(file, numbers[start : start + _CHUNK], kind, meta.last_page)


def check_once(numbers: npt.NDArray[np.integer[Any]]) -> None:
    """Check that no page number is there twice."""
    ordered = np.sort(numbers)
    twice = ordered[1:] == ordered[:-1]
    if twice.any():
        raise DamageError(f"page {int(ordered[twice.argmax()])} is used twice")


@dataclass(frozen=True)
class Leaf:
    """A leaf page, the number of its nodes, and the first of them that is meant."""

    number: int
    page: bytes
    count: int
    entry: int


def leaves_from(file: PageFile, meta: Meta, key: bytes) -> Iterator[Leaf]:
    """The leaf page where `key` belongs, and the leaf pages after it.

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
    """The entry of the child page where a key belongs; the key of the first is not used."""
    return bisect_right(range(1, count), key, key=lambda entry: branch_node(page, entry)[0])


def _page(file: PageFile, meta: Meta, number: int, kind: int) -> tuple[bytes, int]:
    if not 2 <= number <= meta.last_page:
        raise DamageError(f"page {number} lies outside the file")
    page = file.page(number)
    return page, count_nodes(page, number, kind)
