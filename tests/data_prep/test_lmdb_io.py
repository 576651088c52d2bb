"""LMDB databases: records that are written are read, and errors have their messages."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import pytest

from data_prep import lmdb_io
from data_prep.lmdb_io import Reader, Writer
from prototxt_gen.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096


def _fill(path: Path, count: int, size: int = 100, **options: int) -> None:
    with Writer(path, **options) as writer:
        for number in range(count):
            writer.put(f"{number:08d}_x".encode(), bytes([number % 256]) * size)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """120 records, some of them on overflow pages."""
    with Writer(tmp_path / "db") as writer:
        for number in range(120):
            writer.put(f"{number:08d}_x".encode(), bytes([number]) * (50 + 60 * number))
    return tmp_path / "db"


def test_records_by_position_and_in_order(database: Path) -> None:
    with Reader(database) as reader:
        assert len(reader) == 120
        assert reader.key(119) == "00000119_x"
        assert reader.key_bytes(0) == b"00000000_x"
        assert reader.get(7) == bytes([7]) * 470
        assert [(key[:8], len(value)) for key, value in reader] == [
            (b"%08d" % number, 50 + 60 * number) for number in range(120)
        ]
        for index in (-1, 120, 1 << 40):
            with pytest.raises(IndexError, match=f"record {index} of 120"):
                reader.get(index)
            with pytest.raises(IndexError, match=f"record {index} of 120"):
                reader.key(index)


def test_many_threads_read_one_reader(database: Path) -> None:
    with Reader(database) as reader, ThreadPoolExecutor(8) as pool:
        places = [random.Random(1).randrange(120) for _ in range(2000)]
        assert list(pool.map(lambda p: reader.get(p)[0], places)) == places


def test_a_closed_database_is_not_read(database: Path) -> None:
    first, second = Reader(database), Reader(database)
    first.close()
    assert second.get(3)[0] == 3
    for use in (lambda: first.get(3), lambda: first.key(3), lambda: len(first)):
        with pytest.raises(DataError, match="the database was closed; open a new Reader"):
            use()
    writer = Writer(database, append=True)
    writer.close()
    for use in (lambda: writer.put(b"a", b""), writer.last_key, lambda: writer.count):
        with pytest.raises(DataError, match="the database was closed; open a new Writer"):
            use()
    writer.close()


def test_the_map_grows_by_itself(tmp_path: Path) -> None:
    _fill(tmp_path / "db", 500, size=5000, map_size=1 << 16, commit_every=64)
    with Reader(tmp_path / "db") as reader:
        assert len(reader) == 500
        assert all(value == bytes([n % 256]) * 5000 for n, (_, value) in enumerate(reader))


def test_an_error_keeps_what_was_committed(tmp_path: Path) -> None:
    def fail() -> None:
        with Writer(tmp_path / "db", commit_every=10) as writer:
            for number in range(25):
                writer.put(b"%08d" % number, b"x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with Writer(tmp_path / "db", append=True) as writer:
        assert (writer.count, writer.last_key()) == (20, b"00000019")


def test_a_new_database_has_no_last_key(tmp_path: Path) -> None:
    with Writer(tmp_path / "db", append=True) as writer:
        assert writer.last_key() is None


def test_an_existing_folder_is_refused(database: Path) -> None:
    with pytest.raises(DataError, match=r"exists already; expected a new folder; .*--resume"):
        Writer(database)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/db: cannot be made: Not a directory; choose a fol"):
        Writer(tmp_path / "file" / "db")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(DataError, match=r"cannot be made: Read-only file system; choose a folder"):
        Writer(tmp_path / "db")


def test_keys_too_long(tmp_path: Path) -> None:
    with Writer(tmp_path / "db") as writer:
        with pytest.raises(DataError, match=r"a key of 600 bytes .* use shorter file names"):
            writer.put(b"k" * 600, b"x")
        writer.put(b"k" * 511, b"x")


FILL_A_SMALL_DISK = """
import resource, sys
from data_prep.lmdb_io import Writer
from prototxt_gen.errors import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 21, 1 << 21))
try:
    with Writer(sys.argv[1], commit_every=50) as writer:
        for number in range(2000):
            writer.put(b"%08d" % number, bytes(6000))
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a file as Linux does")
def test_a_full_disk_is_an_error_and_committed_records_stay(tmp_path: Path) -> None:
    path = tmp_path / "db"
    done = subprocess.run(
        [sys.executable, "-c", FILL_A_SMALL_DISK, str(path)],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert "50 records could not be written" in done.stdout
    assert "full disk" in done.stdout
    assert "continue with --resume" in done.stdout
    with Reader(path) as reader:
        assert f"the {len(reader)} records committed before are safe" in done.stdout
        assert 50 <= len(reader) < 2000
        assert all(value == bytes(6000) for _, value in reader)


ON_A_FULL_DISK = """
mount -t tmpfs -o size=64k none "$1" || exit 77
mkdir "$1/db"
dd if=/dev/zero of="$1/fill" 2> /dev/null
exec "$2" -c '
import sys
from data_prep.lmdb_io import Writer
from prototxt_gen.errors import DataError
try:
    Writer(sys.argv[1], append=True)
except DataError as error:
    print(error)
' "$1/db"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="makes a small file system as Linux does")
def test_a_database_begun_on_a_full_disk(tmp_path: Path) -> None:
    """liblmdb maps its lock file, which ends the process where there is no space for it."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", ON_A_FULL_DISK, "sh", str(tmp_path), sys.executable],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a file system")
    assert done.returncode == 0, done.stderr
    assert "cannot be opened for writing: No space left on device" in done.stdout


def _missing(folder: Path) -> None:
    folder.rmdir()


def _file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("")


def _nothing(folder: Path) -> None:
    del folder


def _leveldb(folder: Path) -> None:
    (folder / "CURRENT").write_text("MANIFEST-000002\n")
    (folder / "MANIFEST-000002").write_bytes(b"")


def _garbage(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(random.Random(0).randbytes(3 * PAGE))


def _empty_file(folder: Path) -> None:
    (folder / "data.mdb").write_bytes(b"")


def _no_file(folder: Path) -> None:
    os.mkfifo(folder / "data.mdb")


def _named(folder: Path) -> None:
    with lmdb.open(str(folder), max_dbs=1) as environment:
        database = environment.open_db(b"train")
        with environment.begin(write=True, db=database) as transaction:
            transaction.put(b"key", b"value")


def _changed_header(folder: Path, offset: int, value: int) -> None:
    _fill(folder / "whole", 1)
    content = bytearray((folder / "whole" / "data.mdb").read_bytes())
    content[offset] = content[PAGE + offset] = value
    (folder / "data.mdb").write_bytes(content)


def _duplicates(folder: Path) -> None:
    _changed_header(folder, 92, 4)


def _other_version(folder: Path) -> None:
    _changed_header(folder, 20, 2)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_missing, "no such database; expected a folder with data.mdb; make it with `verydeep"),
        (_file, "a file; expected the folder that holds data.mdb"),
        (_nothing, "not an LMDB database: there is no data.mdb in it"),
        (_leveldb, "a LevelDB database; expected LMDB; make it again .*--backend lmdb"),
        (_garbage, "corrupt LMDB: data.mdb does not begin with an LMDB 0.9 header"),
        (_empty_file, "corrupt LMDB: the file is empty or shorter than a header"),
        (_no_file, "not an LMDB database: there is no data.mdb in it"),
        (_named, "not a database of Caffe: b'train' is a named database within it; expected LMDB"),
        (_duplicates, "not a database of Caffe: it has the flags 0x4, for duplicates of a key"),
        (_other_version, "not a database of Caffe: its format has version 2 where LMDB 0.9 has 1"),
    ],
)
def test_what_is_not_a_database(
    tmp_path: Path, prepare: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "db"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(DataError, match=words):
        Reader(folder)
    if prepare in (_garbage, _no_file, _named, _duplicates, _other_version, _leveldb, _file):
        before = sorted(folder.rglob("*"))
        with pytest.raises(DataError, match=words):
            Writer(folder, append=True)
        assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "a\ud800"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        Reader(tmp_path / name)
    for append in (False, True):
        with pytest.raises(DataError, match=r"cannot be (made|opened)"):
            Writer(tmp_path / name, append=append)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe")
    _fill(path, 3)
    with Reader(path) as reader:
        assert len(reader) == 3


def test_keys_of_any_bytes_and_length(tmp_path: Path) -> None:
    chance = random.Random(0)
    keys = [bytes([0] * zeros) for zeros in (1, 7, 8, 9, 16)]
    keys += [chance.randbytes(length) for length in (*range(1, 40), 127, 128, 300, 511)]
    keys += [keys[-1][:-1] + bytes([last]) for last in (0, 128, 255)]
    with Writer(tmp_path / "db", commit_every=7) as writer:
        for key in keys:
            writer.put(key, key[::-1])
    with Reader(tmp_path / "db") as reader:
        assert list(reader) == sorted((key, key[::-1]) for key in set(keys))


def _killed_at_once(folder: Path) -> None:
    (folder / "data.mdb").touch()


def _killed_before(folder: Path) -> None:
    (folder / "lock.mdb").touch()


@pytest.mark.parametrize("left", [_nothing, _killed_before, _killed_at_once])
def test_a_start_that_was_interrupted_is_begun_again(
    tmp_path: Path, left: Callable[[Path], None]
) -> None:
    path = tmp_path / "db"
    path.mkdir()
    left(path)
    with Writer(path, append=True) as writer:
        assert (writer.count, writer.last_key()) == (0, None)
        writer.put(b"a", b"b")
    with Reader(path) as reader:
        assert list(reader) == [(b"a", b"b")]


def test_an_empty_database(tmp_path: Path) -> None:
    _fill(tmp_path / "db", 0)
    with pytest.raises(DataError, match="the database is empty; expected at least one record"):
        Reader(tmp_path / "db")


def test_a_truncated_database(database: Path) -> None:
    file = database / "data.mdb"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DataError, match=r"corrupt LMDB: data.mdb has \d+ bytes of \d+: it is trunc"
    ):
        Reader(database)
    with pytest.raises(DataError, match="it is truncated"):
        Writer(database, append=True)


def test_a_database_that_is_cut_short_while_it_is_open(database: Path) -> None:
    """Its map would end the process at the first page that is gone."""
    with Reader(database) as reader:
        assert reader.get(0)
        with (database / "data.mdb").open("r+b") as file:
            length = file.seek(0, 2)
            file.truncate(8192)
        with pytest.raises(DataError, match=f"data.mdb has 8192 bytes of {length}: it was cut"):
            reader.get(0)


def test_a_database_that_is_cut_short_within_a_read(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Reader(database) as reader:
        pread = os.pread

        def cut(descriptor: int, size: int, offset: int) -> bytes:
            os.truncate(database / "data.mdb", offset + size // 2)
            return pread(descriptor, size, offset)

        monkeypatch.setattr(lmdb_io.os, "pread", cut)
        with pytest.raises(DataError, match=r"data.mdb has \d+ bytes of \d+: it was cut short"):
            reader.get(len(reader) - 1)

        def broken(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

    _fill(database.with_name("other"), 3)
    with Reader(database.with_name("other")) as reader:
        monkeypatch.setattr(lmdb_io.os, "pread", broken)
        with pytest.raises(DataError, match="cannot be read: Input/output error; look at the disk"):
            reader.get(0)
