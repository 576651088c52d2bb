"""The index of an LMDB: positions, memory for each record, and changes while it is built."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from data_prep import lmdb_reader, lmdb_tree
from data_prep.lmdb_file import DamageError, Meta, PageFile
from data_prep.lmdb_io import Reader, Writer
from data_prep.lmdb_pages import LEAF, Nodes, read_nodes
from data_prep.lmdb_reader import build_index
from data_prep.lmdb_tree import hash_key, hash_ordered_keys
from prototxt_gen.errors import DataError


def _write(path: Path, records: dict[bytes, bytes]) -> None:
    with Writer(path, append=path.exists()) as writer:
        for key, value in records.items():
            writer.put(key, value)


def _random_keys(count: int) -> list[bytes]:
    chance = random.Random(count)
    return [chance.randbytes(chance.choice([1, 7, 8, 9, 30, 200])) for _ in range(count)]


def _leaves(path: Path) -> Nodes:
    file = PageFile(path)
    meta, _ = file.newest()
    return read_nodes(file, lmdb_tree.leaf_pages(file, meta, meta.main), LEAF, meta.last_page)


def test_hashes_of_many_keys_are_those_of_each(tmp_path: Path) -> None:
    _write(tmp_path / "db", dict.fromkeys(_random_keys(500), b""))
    nodes = _leaves(tmp_path / "db")
    hashes = hash_ordered_keys(nodes, None)
    keys = [nodes.key(node) for node in range(len(hashes))]
    assert hashes.tolist() == [hash_key(key) for key in keys]
    assert len(set(hashes.tolist())) == len(keys)
    assert nodes.keys() == b"".join(keys)


@pytest.mark.parametrize("key", [b"00000011", b"00000012", b"00000009", b"00000000"])
def test_keys_out_of_order(tmp_path: Path, key: bytes) -> None:
    _write(tmp_path / "db", dict.fromkeys([b"%08d" % number for number in range(400)], b""))
    file = tmp_path / "db" / "data.mdb"
    file.write_bytes(file.read_bytes().replace(b"00000010", key))
    with pytest.raises(DataError, match=r"the keys of page \d+ are out of order"):
        Reader(tmp_path / "db")
    with pytest.raises(DataError, match=r"the keys of page \d+ are out of order"):
        Writer(tmp_path / "db", append=True)


@pytest.mark.parametrize("length", [3, 8, 9, 16, 17])
def test_the_order_of_keys_that_begin_alike(tmp_path: Path, length: int) -> None:
    """A shorter key comes before a longer one that begins with it, zero bytes or not."""
    begin = b"a" * length
    keys = [begin + end for end in (b"", b"\0", b"\0\0", b"\0\1", b"\1", b"\1\0", b"b")]
    _write(tmp_path / "db", dict.fromkeys(keys, b""))
    with Reader(tmp_path / "db") as reader:
        assert [key for key, _ in reader] == keys
    nodes = _leaves(tmp_path / "db")
    for first, second in itertools.pairwise(range(len(keys))):
        order = list(range(len(keys)))
        order[first], order[second] = second, first
        swapped = dataclasses.replace(
            nodes, starts=nodes.starts[order], key_sizes=nodes.key_sizes[order]
        )
        with pytest.raises(DamageError, match="are out of order"):
            hash_ordered_keys(swapped, None)


@pytest.mark.parametrize("table", [True, False])
def test_positions_of_keys_in_random_order(
    tmp_path: Path, table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not table:
        monkeypatch.setattr(lmdb_reader, "_TABLE_BYTES", 0)
    records = {key: key * (number % 30) for number, key in enumerate(_random_keys(1500))}
    _write(tmp_path / "db", records)
    with Reader(tmp_path / "db") as reader:
        expected = sorted(records.items())
        order = list(range(len(expected)))
        random.Random(0).shuffle(order)
        assert [(reader.key_bytes(n), reader.get(n)) for n in order] == [expected[n] for n in order]


def test_a_table_that_proves_too_large_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_reader, "_TABLE_BYTES", 24 * 1000)
    monkeypatch.setattr(lmdb_tree, "_CHUNK", 3)
    records = {b"%08d" % number + b"long" * 9: b"" for number in range(1000)}
    _write(tmp_path / "db", records)
    assert build_index(PageFile(tmp_path / "db")).table is None
    with Reader(tmp_path / "db") as reader:
        assert dict(iter(reader)) == records


def _held(path: Path) -> tuple[float, float]:
    """Bytes that an open database takes for a record, and took at most while it was opened."""
    Reader(path).close()
    tracemalloc.start()
    with Reader(path) as reader:
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held / len(reader), most / len(reader)


def test_memory_for_each_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,281,167 records may take 100 MB, and 14 million 400 MB."""
    monkeypatch.setattr(lmdb_tree, "_CHUNK", 16)
    records = {b"%08d_n%08d/%d.JPEG" % (n, n % 1000, n): b"x" * 30 for n in range(10_000)}
    _write(tmp_path / "db", records)
    held, most = _held(tmp_path / "db")
    assert held < 60
    assert most < 150
    monkeypatch.setattr(lmdb_reader, "_TABLE_BYTES", 0)
    held, most = _held(tmp_path / "db")
    assert held < 9
    assert most < 50  # arrays of one chunk of pages included


@pytest.mark.parametrize("stale", [1, 2, 3, 5, 8])
def test_an_index_of_a_database_that_changes_meanwhile(
    tmp_path: Path, stale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading continues from the last key in the newer state."""
    monkeypatch.setattr(lmdb_tree, "_CHUNK", 2)
    records = {b"%08d" % number: b"x" * (number % 90) for number in range(900)}
    _write(tmp_path / "db", records)
    asked = itertools.count(1)
    keeps = PageFile.keeps

    def sometimes(file: PageFile, meta: Meta) -> bool:
        return next(asked) % (stale + 1) != stale and keeps(file, meta)

    monkeypatch.setattr(PageFile, "keeps", sometimes)
    index = build_index(PageFile(tmp_path / "db"))
    assert len(index) == 900
    assert index.hashes.tolist() == [hash_key(key) for key in records]
    monkeypatch.undo()
    with Reader(tmp_path / "db") as reader:
        assert dict(iter(reader)) == records


def test_a_database_that_changes_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "db", {b"a": b"a"})
    monkeypatch.setattr(PageFile, "keeps", lambda *_: False)
    monkeypatch.setattr(lmdb_reader, "_ATTEMPTS", 9)
    words = "another program changes the database faster than it can be read; wait until"
    with pytest.raises(DataError, match=words):
        Reader(tmp_path / "db")
    with pytest.raises(DataError, match=words):
        Writer(tmp_path / "db", append=True)


def test_a_header_that_is_within_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest state is taken when two readings agree."""
    _write(tmp_path / "db", {b"a": b"a"})
    file = PageFile(tmp_path / "db")
    whole = file.headers()
    torn = bytearray(whole)
    torn[-8:] = np.array([99], "<u8").tobytes()
    answers = iter([bytes(torn), whole, whole])
    monkeypatch.setattr(PageFile, "headers", lambda _: next(answers))
    assert file.newest()[1] == whole


def test_a_branch_that_leads_back(tmp_path: Path) -> None:
    """The walk ends: a page that is used twice is damage."""
    _write(tmp_path / "db", dict.fromkeys([b"%08d" % number for number in range(900)], b""))
    file = PageFile(tmp_path / "db")
    root = file.newest()[0].main.root
    content = bytearray((tmp_path / "db" / "data.mdb").read_bytes())
    first, second = np.frombuffer(content, "<u2", 2, root * 4096 + 16).tolist()
    content[root * 4096 + second : root * 4096 + second + 6] = content[
        root * 4096 + first : root * 4096 + first + 6
    ]
    (tmp_path / "db" / "data.mdb").write_bytes(content)
    with pytest.raises(DataError, match=r"page \d+ is used twice"):
        Reader(tmp_path / "db")
    meta = file.newest()[0]
    with pytest.raises(DamageError, match="used twice"):
        lmdb_tree.leaf_pages(file, meta, meta.main)
