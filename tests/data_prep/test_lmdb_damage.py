"""Damaged LMDB files: read and continued without a signal, a wrong record or an untyped error."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from data_prep.lmdb_file import PageFile
from data_prep.lmdb_io import Reader, Writer
from data_prep.lmdb_tree import free_pages
from prototxt_gen.errors import DataError

PAGE = 4096


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """120 records, some of them on pages of their own, and a list of free pages."""
    for start in (0, 60):
        with Writer(tmp_path / "db", append=start > 0) as writer:
            for number in range(start, 120):
                writer.put(f"{number:08d}_x".encode(), bytes([number]) * (50 + 60 * number))
    return tmp_path / "db"


def _read_all(folder: Path) -> str:
    """The words of the DataError, or "ok"."""
    try:
        with Reader(folder) as reader:
            assert all(isinstance(value, bytes) for _, value in reader)
    except DataError as error:
        return str(error)
    return "ok"


@pytest.mark.parametrize("part", ["header", "bounds", "first node", "whole page"])
def test_every_damaged_page_is_found_or_harmless(database: Path, part: str) -> None:
    """liblmdb itself would end the process on some of these."""
    file = database / "data.mdb"
    whole = file.read_bytes()
    chance = random.Random(part)
    answers = []
    root = PageFile(database).newest()[0].main.root
    for page in {0, 1, root, *chance.sample(range(len(whole) // PAGE), 40)}:
        damaged = bytearray(whole)
        start, stop = {
            "header": (0, 12), "bounds": (12, 16), "first node": (16, 40), "whole page": (0, PAGE),
        }[part]  # fmt: skip
        damaged[page * PAGE + start : page * PAGE + stop] = chance.randbytes(stop - start)
        file.write_bytes(damaged)
        answers.append(_read_all(database))
    assert any("corrupt LMDB" in answer for answer in answers)


def _meta(database: Path) -> int:
    """Where the newest header begins in the file."""
    newest = PageFile(database).newest()[0]
    return newest.txnid % 2 * PAGE


def _free_list(database: Path, which: int = 0) -> int:
    """Where a list of free pages begins in the file: its length, then its numbers."""
    newest = PageFile(database).newest()[0]
    start = newest.free.root * PAGE
    page = (database / "data.mdb").read_bytes()[start : start + PAGE]
    (pointer,) = struct.unpack_from("<H", page, 16 + 2 * which)
    return start + pointer + 8 + 8


def _change(database: Path, offset: int, form: str, value: int) -> None:
    with (database / "data.mdb").open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(form, value))


def _flags_of_free_table(database: Path) -> None:
    _change(database, _meta(database) + 44, "<H", 4)


def _root_of_free_table(database: Path) -> None:
    _change(database, _meta(database) + 80, "<Q", 1 << 40)


def _flags_of_table(database: Path) -> None:
    _change(database, _meta(database) + 92, "<H", 2)


def _many_pages(database: Path) -> None:
    _change(database, _meta(database) + 136, "<Q", 1 << 30)


def _long_list(database: Path) -> None:
    _change(database, _free_list(database), "<Q", 1 << 20)


def _used_page_in_list(database: Path) -> None:
    root = PageFile(database).newest()[0].main.root
    _change(database, _free_list(database), "<Q", 1)
    _change(database, _free_list(database) + 8, "<Q", root)


def _list_in_wrong_order(database: Path) -> None:
    first, second = struct.unpack_from(
        "<QQ", (database / "data.mdb").read_bytes(), _free_list(database) + 8
    )
    _change(database, _free_list(database) + 8, "<Q", second)
    _change(database, _free_list(database) + 16, "<Q", first)


def _page_in_two_lists(database: Path) -> None:
    with Writer(database, append=True) as writer:
        writer.put(b"00000000_x", b"frees pages of its own")
    first, second = _free_list(database), _free_list(database, 1)
    (number,) = struct.unpack_from("<Q", (database / "data.mdb").read_bytes(), first + 8)
    _change(database, second, "<Q", 1)
    _change(database, second + 8, "<Q", number)


def _separator(database: Path) -> None:
    """A key in a branch page that is greater than the first below it."""
    with Writer(database, append=True) as writer:
        for number in range(200):
            writer.put(b"~%d" % number, bytes(100))
    root = PageFile(database).newest()[0].main.root
    content = (database / "data.mdb").read_bytes()
    (pointer,) = struct.unpack_from("<H", content, root * PAGE + 18)
    size = struct.unpack_from("<H", content, root * PAGE + pointer + 6)[0]
    _change(database, root * PAGE + pointer + 8 + size - 1, "<B", 255)


def _dirty_page(database: Path) -> None:
    root = PageFile(database).newest()[0].main.root
    _change(database, root * PAGE + 10, "<H", 0x11)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_flags_of_free_table, "its table of free pages has the flags 0x4"),
        (_root_of_free_table, f"page {1 << 40} is outside the file"),
        (_flags_of_table, "it has the flags 0x2"),
        (_many_pages, r"data.mdb has \d+ bytes of \d+: it is truncated"),
        (_long_list, r"a list of free pages in page \d+ is damaged"),
        (_used_page_in_list, "a page is used twice"),
        (_list_in_wrong_order, r"a list of free pages in page \d+ is damaged"),
        (_page_in_two_lists, r"page \d+ is used twice"),
        (_separator, r"page \d+ has keys that belong elsewhere"),
        (_dirty_page, r"page \d+ is overwritten"),
    ],
)
def test_damage_that_liblmdb_would_trust_when_it_writes(
    database: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(database)
    before = (database / "data.mdb").read_bytes()
    with pytest.raises(DataError, match=words):
        Writer(database, append=True)
    assert (database / "data.mdb").read_bytes() == before


def _node_of(database: Path, key: bytes) -> int:
    """Where the node of a key begins in the file."""
    return (database / "data.mdb").read_bytes().rindex(key) - 8


def _shorter_value(database: Path) -> None:
    _change(database, _node_of(database, b"00000003_x"), "<H", 200)


def _header_in_the_wrong_place(database: Path) -> None:
    _change(database, PAGE - _meta(database) + 144, "<Q", 1000 + _meta(database) // PAGE)


def _header_that_skips_commits(database: Path) -> None:
    _change(database, PAGE - _meta(database) + 144, "<Q", 1 - _meta(database) // PAGE + 100)


def _value_of_before(database: Path) -> None:
    """A value on pages that have been freed, and that have kept their header."""
    file = PageFile(database)
    with Writer(database, append=True) as writer:
        writer.put(b"00000119_x", bytes([1]) * 7200)
    free = free_pages(file, file.newest()[0]).tolist()
    headers = [struct.unpack("<Q2xHI", file.page(number)[:16]) for number in free]
    old = next(number for number, flags, count in headers if (flags, count) == (4, 2))
    _change(database, _node_of(database, b"00000119_x") + 18, "<Q", old)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_shorter_value, r"the nodes of page \d+ overlap or leave gaps"),
        (_header_that_skips_commits, "its two headers contradict each other"),
        (_header_in_the_wrong_place, "its two headers contradict each other"),
        (_value_of_before, r"page \d+ is in use and in the list of free pages"),
    ],
)
def test_damage_that_would_give_other_records(
    database: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(database)
    with pytest.raises(DataError, match=words):
        Reader(database)
    with pytest.raises(DataError, match="corrupt LMDB"):
        Writer(database, append=True)


def test_damaged_lists_of_free_pages_do_not_hinder_reading(database: Path) -> None:
    whole = dict(iter(Reader(database)))
    _long_list(database)
    assert dict(iter(Reader(database))) == whole


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(12, 5, "the value of b'a' has pages of others"), (8, 0x140000, r"page \d+ is overwritten")],
)
def test_a_value_whose_pages_are_wrong_is_not_replaced(
    tmp_path: Path, offset: int, value: int, words: str
) -> None:
    """liblmdb would free pages of another value, or take a page for one of its transaction."""
    path = tmp_path / "db"
    with Writer(path) as writer:
        for key in (b"a", b"b", b"c"):
            writer.put(key, key * 9000)
    content = (path / "data.mdb").read_bytes()
    first = content.index(b"a" * 4000) - 16
    _change(path, first + offset, "<I", value)
    with Writer(path, append=True) as writer:
        writer.put(b"d", b"d")
        writer.commit()
        writer.put(b"a", b"new")
        with pytest.raises(DataError, match=words):
            writer.commit()
        writer._pending.clear()
    with Reader(path) as reader:
        assert list(reader)[1:] == [(b"b", b"b" * 9000), (b"c", b"c" * 9000), (b"d", b"d")]


def test_a_value_with_more_pages_than_it_needs(tmp_path: Path) -> None:
    """liblmdb leaves it so when a value is replaced by a shorter one in one transaction."""
    path = tmp_path / "db"
    with Writer(path) as writer:
        writer.put(b"a", b"a" * 90_000)
        writer.put(b"a", b"a" * 5000)
        writer.put(b"b", b"b" * 9000)
    with Writer(path, append=True) as writer:
        writer.put(b"a", b"new" * 3000)
    with Reader(path) as reader:
        assert list(reader) == [(b"a", b"new" * 3000), (b"b", b"b" * 9000)]


def test_two_values_on_the_same_pages(database: Path) -> None:
    base = (database / "data.mdb").read_bytes()
    node = base.rindex(b"00000118_x")
    (other,) = struct.unpack_from("<Q", base, base.rindex(b"00000119_x") + 10)
    _change(database, node + 10, "<Q", other)
    with pytest.raises(DataError, match=r"page \d+ is used twice"):
        Reader(database)


@pytest.mark.slow
def test_random_damage_never_ends_the_process(database: Path) -> None:
    file = database / "data.mdb"
    whole = file.read_bytes()
    chance = random.Random(3)
    answers = set()
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 4, 40])):
            at = chance.randrange(len(whole) // PAGE) * PAGE + chance.randrange(120)
            damaged[at] ^= 1 << chance.randrange(8)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(whole)) :]
        file.write_bytes(damaged)
        answers.add(_read_all(database).partition(": ")[2][:30])
    assert len(answers) > 3


def _random_work(path: Path, chance: random.Random) -> dict[bytes, bytes]:
    """Write a database in several commits; returns its records."""
    longest, largest = chance.choice([8, 40, 511]), chance.choice([10, 1000, 2100, 20_000])
    keys = [chance.randbytes(chance.randint(1, longest)) for _ in range(chance.choice([5, 300]))]
    keys = [key for key in keys if key[0] < 255]
    records: dict[bytes, bytes] = {}
    with lmdb.open(
        str(path), map_size=1 << 26, sync=False, writemap=chance.random() < 0.3
    ) as environment:
        for _ in range(chance.choice([1, 3, 10])):
            changed = dict(records)
            with environment.begin(write=True) as transaction:
                for _ in range(chance.choice([1, 10, 100])):
                    key = chance.choice(keys)
                    if chance.random() < 0.7:
                        value = chance.randbytes(chance.randrange(largest))
                        if chance.random() < 0.3:
                            transaction.put(key, value * 2)
                        transaction.put(key, value)
                        changed[key] = value
                    else:
                        transaction.delete(key)
                        changed.pop(key, None)
                if chance.random() < 0.1:
                    transaction.abort()
                    continue
            records = changed
    return records


def test_sound_databases_of_other_programs_are_accepted(tmp_path: Path) -> None:
    """Random work of liblmdb: replaced, shortened and removed records, and aborted commits."""
    for seed in range(25):
        records = _random_work(tmp_path / str(seed), random.Random(seed))
        with Writer(tmp_path / str(seed), append=True) as writer:
            for key in random.Random(seed).sample(sorted(records), min(9, len(records))):
                writer.put(key, key * 300)
                records[key] = key * 300
            writer.put(b"\xff" * 20, b"")
        records[b"\xff" * 20] = b""
        with Reader(tmp_path / str(seed)) as reader:
            assert list(reader) == sorted(records.items())


@pytest.mark.parametrize("count", [4_000, 1 << 24, (1 << 32) - 1])
def test_a_list_of_free_pages_that_claims_more_pages_than_the_file_has(
    tmp_path: Path, count: int
) -> None:
    """It allocated as much memory as the page claimed."""
    with lmdb.open(str(tmp_path / "db"), map_size=64 << 20) as environment:
        with environment.begin(write=True) as transaction:
            for number in range(600):
                transaction.put(b"%08d_x" % number, bytes(5000))
        with environment.begin(write=True) as transaction:
            for number in range(1, 600):
                transaction.delete(b"%08d_x" % number)
    content = (tmp_path / "db" / "data.mdb").read_bytes()
    heads = [struct.unpack_from("<Q2xHI", content, start) for start in range(0, len(content), PAGE)]
    # Values have two pages, the list of 1,198 pages has three.
    (page,) = [number for number, flags, pages in heads if (flags, pages) == (4, 3)]
    Writer(tmp_path / "db", append=True).close()
    _change(tmp_path / "db", page * PAGE + 12, "<I", count)
    with pytest.raises(DataError, match=f"page {page} is overwritten"):
        Writer(tmp_path / "db", append=True)
