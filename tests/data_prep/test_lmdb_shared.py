"""One LMDB used at the same time by liblmdb, threads, child processes and other programs."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from data_prep import lmdb_reader
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
Records = dict[bytes, bytes]


def _records(count: int, size: int = 100) -> Records:
    return {b"%08d_x" % n: bytes([n % 256]) * (size + n % 7) for n in range(count)}


def _write(path: Path, records: Records) -> None:
    with Writer(path, append=path.exists()) as writer:
        for key, value in records.items():
            writer.put(key, value)


@pytest.fixture(params=["table", "pages"])
def database(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """300 records, read by a table in memory, or from their pages as those of large databases."""
    if request.param == "pages":
        monkeypatch.setattr(lmdb_reader, "_TABLE_BYTES", 0)
    _write(tmp_path / "db", _records(300))
    return tmp_path / "db"


def _script(database: Path, code: str) -> str:
    """Code for another process, with `environment` open and `put(records)` that commits."""
    return f"""
import lmdb
environment = lmdb.open({str(database)!r}, map_size=1 << 28, sync=False)
def put(records):
    with environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
{code}
environment.close()
"""


def _elsewhere(database: Path, code: str) -> None:
    """Run code of `_script` to its end."""
    subprocess.run([sys.executable, "-c", _script(database, code)], check=True)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[lmdb.Environment]:
    """A database that this process has open with liblmdb."""
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 26) as opened:
        with opened.begin(write=True) as transaction:
            for key, value in _records(300).items():
                transaction.put(key, value)
        yield opened


def test_a_database_that_this_process_has_open_with_liblmdb(
    environment: lmdb.Environment, tmp_path: Path
) -> None:
    with Reader(tmp_path / "db") as reader:
        assert dict(iter(reader)) == _records(300)
        for number in range(300, 310):
            with environment.begin(write=True) as transaction:
                transaction.put(b"%08d_x" % number, b"new")
        assert dict(iter(reader)) == _records(300)
    with Reader(tmp_path / "db") as reader:
        assert len(reader) == 310
    with environment.begin() as transaction:
        assert transaction.get(b"00000309_x") == b"new"


def test_an_uncommitted_transaction_is_not_read(
    environment: lmdb.Environment, tmp_path: Path
) -> None:
    with environment.begin(write=True) as transaction:
        transaction.put(b"00000000_x", b"not yet")
        with Reader(tmp_path / "db") as reader:
            assert dict(iter(reader)) == _records(300)
        transaction.abort()


def test_liblmdb_opens_a_database_that_is_read(database: Path) -> None:
    with Reader(database) as reader:
        with lmdb.open(str(database)) as environment, environment.begin() as transaction:
            assert transaction.get(b"00000007_x") == reader.get(7)
        assert dict(iter(reader)) == _records(300)


def test_a_writer_and_an_environment_of_the_script(
    environment: lmdb.Environment, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"cannot be opened for writing: .* this process has it"):
        Writer(tmp_path / "db", append=True)
    with environment.begin(write=True) as transaction:
        transaction.put(b"00000300_x", b"the environment still works")


def test_readers_and_writers_of_one_process(database: Path) -> None:
    with Reader(database) as before, Writer(database, append=True) as first:
        with Writer(database, append=True) as second:
            first.put(b"00000300_x", b"first")
            second.put(b"00000301_x", b"second")
            second.commit()
            first.commit()
            with Reader(database) as after:
                assert after.get(300) == b"first"
                assert after.get(301) == b"second"
        first.put(b"00000302_x", b"the environment is still open")
        first.commit()
        assert dict(iter(before)) == _records(300)
        assert first.count == 303
    with lmdb.open(str(database)) as environment:
        assert environment.stat()["entries"] == 303


def test_writers_in_threads(tmp_path: Path) -> None:
    path, records = tmp_path / "db", _records(400, 3000)
    parts = [list(records.items())[start::4] for start in range(4)]
    start = threading.Barrier(4)

    def write(part: list[tuple[bytes, bytes]]) -> None:
        start.wait()
        with Writer(path, append=True, map_size=1 << 16, commit_every=20) as writer:
            for key, value in part:
                writer.put(key, value)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, parts))
    with Reader(path) as reader:
        assert dict(iter(reader)) == records


def test_one_writer_in_threads(tmp_path: Path) -> None:
    records = _records(400)
    with (
        Writer(tmp_path / "db", commit_every=30) as writer,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(writer.put, records, records.values()))
    with Reader(tmp_path / "db") as reader:
        assert dict(iter(reader)) == records


FORK = """
import os, sys
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen.errors import DataError

def child(work):
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return process

def read():
    assert list(reader) == whole
    reader.close()
    assert len(Reader(sys.argv[1])) == 300

def refused():
    try:
        writer.put(b"x", b"x")
    except DataError as error:
        assert "opened before this process was forked" in str(error)
    else:
        raise AssertionError("no error")
    writer.close()

reader = Reader(sys.argv[1])
whole = list(reader)
writer = Writer(sys.argv[2])
writer.put(b"a", b"a")
children = [child(read) for _ in range(3)] + [child(refused) for _ in range(2)]
assert list(reader) == whole
assert [os.waitpid(process, 0)[1] for process in children] == [0] * 5
assert list(reader) == whole
writer.put(b"b", b"b")
writer.close()
assert list(Reader(sys.argv[2])) == [(b"a", b"a"), (b"b", b"b")]
"""


def test_children_after_a_fork(database: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORK, str(database), str(tmp_path / "new")]
    subprocess.run(command, cwd=ROOT, check=True)


GO_ON = """
put({key: b"new" + value for key, value in list(environment.begin().cursor())})
put({b"zz": b""})
"""


def test_a_database_that_another_program_writes_meanwhile(database: Path) -> None:
    """Keys are those of the beginning, values those of now: pages move when they are written."""
    with Reader(database) as reader:
        before = list(reader)
        _elsewhere(database, GO_ON)
        assert list(reader) == [(key, b"new" + value) for key, value in before]
    with Reader(database) as reader:
        assert list(reader) == [*((key, b"new" + value) for key, value in before), (b"zz", b"")]


GROW = """
for start in range(300, 3000, 100):
    put({b"%08d_x" % number: bytes(9000) for number in range(start, start + 100)})
"""


def test_a_database_that_outgrows_its_map(database: Path) -> None:
    """Its pages are used again by later commits, and its map is enlarged."""
    with Reader(database) as reader:
        _elsewhere(database, GROW)
        order = list(range(300))
        random.Random(0).shuffle(order)
        expected = list(_records(300).items())
        assert [(reader.key_bytes(n), reader.get(n)) for n in order] == [expected[n] for n in order]
        assert len(reader) == 300


def test_a_writer_whose_map_another_program_has_outgrown(database: Path) -> None:
    with Writer(database, append=True, map_size=1 << 20) as writer:
        _elsewhere(database, GROW)
        writer.put(b"00009999_x", b"after")
    with Reader(database) as reader:
        assert reader.get(len(reader) - 1) == b"after"
        assert len(reader) == 3001


BETWEEN = """
put({b"%08d_a" % number: b"between" for number in range(0, 300, 2)})
with environment.begin(write=True) as transaction:
    for number in range(0, 300, 5):
        transaction.delete(b"%08d_x" % number)
"""


def test_records_that_are_added_between_and_removed(database: Path) -> None:
    with Reader(database) as reader:
        expected = list(_records(300).items())
        _elsewhere(database, BETWEEN)
        for number in range(300):
            if number % 5:
                assert (reader.key_bytes(number), reader.get(number)) == expected[number]
            else:
                with pytest.raises(DataError, match=f"record {number} is gone; the database was"):
                    reader.get(number)


def test_a_new_index_after_many_records_were_found_by_key(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_reader, "_FINDS", 20)
    finds = []
    find = lmdb_reader.RecordIndex.find
    monkeypatch.setattr(
        lmdb_reader.RecordIndex, "find", lambda *args: finds.append(1) or find(*args)
    )
    with Reader(database) as reader:
        _elsewhere(database, GROW)
        assert dict(iter(reader)) == _records(300)
        assert 0 < len(finds) <= 20
        assert len(reader) == 300
        with pytest.raises(IndexError):
            reader.get(300)


def test_no_new_index_where_positions_have_moved(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_reader, "_FINDS", 20)
    with Reader(database) as reader:
        _elsewhere(database, 'put({b"00000000_a": b"between"})')
        for _ in range(3):
            assert dict(iter(reader)) == _records(300)


def test_another_database_in_its_place(database: Path, tmp_path: Path) -> None:
    other = {b"other %d" % number: b"other" for number in range(300)}
    _write(tmp_path / "other", other)
    with Reader(database) as reader:
        (database / "data.mdb").write_bytes((tmp_path / "other" / "data.mdb").read_bytes())
        with pytest.raises(DataError, match=r"is gone|corrupt"):
            reader.get(5)
    with Reader(database) as reader:
        (database / "data.mdb").unlink()
        assert dict(iter(reader)) == other


BUSY = """
import random, zlib
chance = random.Random(0)
def value(key):
    body = key + chance.randbytes(chance.choice([10, 3000]))
    return body + zlib.crc32(body).to_bytes(4, "little")
put({b"%08d_x" % number: value(b"%08d_x" % number) for number in range(300)})
print("begun", flush=True)
number = 1000
while environment.info()["last_txnid"] < 1000:
    number += 3
    keys = [b"%08d_x" % chance.randrange(300) for _ in range(3)]
    keys += [b"%08d_x" % n for n in range(number, number + 3)]
    keys += [b"%08d_b%d" % (chance.randrange(300), number)]
    put({key: value(key) for key in keys})
"""


def test_while_another_program_writes(database: Path) -> None:
    """Every key and value is whole, though pages are used again all the time."""
    command = [sys.executable, "-c", _script(database, BUSY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reader = Reader(database)
        keys = [reader.key_bytes(index) for index in range(len(reader))]
        assert keys == sorted(keys)
        while process.poll() is None:
            for index in random.sample(range(len(keys)), 20):
                value = reader.get(index)
                assert value.startswith(keys[index])
                assert zlib.crc32(value[:-4]).to_bytes(4, "little") == value[-4:]
            Reader(database).close()
    assert process.returncode == 0
