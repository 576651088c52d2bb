"""Atomic writing: links, devices, pipes, permissions, and what killed processes leave."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prototxt_gen import files
from prototxt_gen.destination import find_destination, is_standard_output, utf8_path
from prototxt_gen.errors import DataError, ProtoError, VerydeepError
from prototxt_gen.file_groups import COMMITTED, replace_together, settle
from prototxt_gen.files import atomic_write, atomic_write_text, temporary_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Links ----------------------------------------------------------------------------------------


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "real").write_text("old")
    (tmp_path / "second").symlink_to("data/real")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    atomic_write_text(tmp_path / "first", "new")
    assert (tmp_path / "first").is_symlink() and (tmp_path / "second").is_symlink()
    assert (tmp_path / "data" / "real").read_text() == "new"
    assert names(tmp_path / "data") == ["real"]


def test_a_link_to_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder/new")
    atomic_write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "new").read_text() == "x"


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    atomic_write_text(tmp_path / "link" / "file", "x")
    assert (tmp_path / "link").is_symlink() and names(tmp_path / "real") == ["file"]


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="a: cannot be written: Too many levels of symbolic links"):
        atomic_write_text(tmp_path / "a", "x", DataError)
    assert names(tmp_path) == ["a", "b"]


# Devices and pipes ----------------------------------------------------------------------------


def test_devices_are_written_to_and_stay() -> None:
    before = Path("/dev/null").stat()
    atomic_write_text("/dev/null", "x")
    after = Path("/dev/null").stat()
    assert stat.S_ISCHR(after.st_mode) and after.st_ino == before.st_ino
    with pytest.raises(VerydeepError, match="/dev/full: cannot be written: No space left"):
        atomic_write_text("/dev/full", "x")


def test_a_pipe_gets_all_or_nothing(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    with pytest.raises(RuntimeError), atomic_write(pipe) as stream:
        stream.write(b"half")
        raise RuntimeError
    with atomic_write(pipe) as stream:
        stream.write(b"0123")
        stream.seek(1)
        stream.write(b"x" * 100_000)
    reader.join()
    assert received == [b"0" + b"x" * 100_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode) and names(tmp_path) == ["pipe"]


def test_standard_output_is_continued_where_it_is(tmp_path: Path) -> None:
    """As in `{ echo before; verydeep export --out /dev/stdout; } > file`."""
    script = (
        "from prototxt_gen.files import atomic_write_text; import sys; print('one')\n"
        "for name in ('/dev/stdout', '/proc/self/fd/1', '/dev/fd/1', 'link'):\n"
        "    atomic_write_text(name, name + '\\n')\n"
        "print('last')"
    )
    (tmp_path / "link").symlink_to("/dev/stdout")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before\n")
        out.flush()
        subprocess.run(
            [sys.executable, "-c", script], stdout=out, cwd=tmp_path, env=environment, check=True
        )
    lines = (tmp_path / "out").read_text().split()
    assert lines == [
        *("before", "one", "/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "link", "last")
    ]
    assert names(tmp_path) == ["link", "out"]


def test_what_is_standard_output(tmp_path: Path) -> None:
    assert is_standard_output("/dev/stdout") and is_standard_output("/proc/self/fd/1")
    assert not is_standard_output("/dev/stderr") and not is_standard_output(tmp_path / "x")
    assert not is_standard_output("") and not is_standard_output("a\0b")


def test_a_socket_or_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)
        server.bind("socket")
        with pytest.raises(VerydeepError, match="socket: cannot be written: it is a socket"):
            atomic_write_text("socket", "x")
    with pytest.raises(VerydeepError, match="Is a directory"):
        atomic_write_text(tmp_path, "x")
    assert names(tmp_path) == ["socket"]


def test_a_block_device_is_refused(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 255))
    except PermissionError:
        pytest.skip("only the superuser may make one")
    with pytest.raises(VerydeepError, match="disk: cannot be written: it is a block device"):
        atomic_write_text(tmp_path / "disk", "x")
    assert stat.S_ISBLK((tmp_path / "disk").stat().st_mode)


# Permissions ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "new", "x")
    assert permissions(tmp_path / "new") == 0o640
    with temporary_folder(tmp_path / "folder") as folder:
        assert permissions(folder) == 0o750


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755, 0o444])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as stream:
        stream.write(b"new")
        (temporary,) = (each for each in tmp_path.iterdir() if each != path)
        assert permissions(temporary) & ~mode == 0, "the file gains no readers"
    assert path.read_text() == "new" and permissions(path) == mode


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser may give files away")
def test_a_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 1234, 2345)
    atomic_write_text(path, "new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_an_owner_that_cannot_be_kept_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("fchown", "fchmod", "setxattr"):
        monkeypatch.setattr(os, name, refuse)
    (tmp_path / "file").write_text("old")
    atomic_write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


# Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["n" * 255, "\N{GREEK SMALL LETTER OMEGA}" * 127, "\udcff\udce9"])
def test_any_name_that_a_file_can_have(name: str, tmp_path: Path) -> None:
    atomic_write_text(tmp_path / name, "x")
    assert (tmp_path / name).read_text() == "x" and len(names(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n" * 256, "File name too long"),
        ("a\0b", "no file can have this name"),
        ("\ud800", "no file can have this name"),
        (".", "Is a directory"),
        ("file/x", "exists"),
    ],
)
def test_any_other_name_is_a_typed_error(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"cannot be written: .*{words}"):
        atomic_write_text(f"{tmp_path}/{name}", "x", DataError)
    assert names(tmp_path) == ["file"]


def test_text_keeps_the_bytes_of_file_names(tmp_path: Path) -> None:
    atomic_write_text(tmp_path / "list", "caf\u00e9 \udcff\n")
    assert (tmp_path / "list").read_bytes() == b"caf\xc3\xa9 \xff\n"


def test_a_path_in_a_prototxt_is_utf8() -> None:
    assert utf8_path(Path("a") / "\u00e9") == "a/\u00e9" and utf8_path("a,b/") == "a,b/"
    with pytest.raises(
        ProtoError, match="a path that is not UTF-8 cannot be written to a prototxt"
    ):
        utf8_path("a/\udcff")


# Failures -------------------------------------------------------------------------------------


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "file") as stream:
        stream.write(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    (tmp_path / "file").write_text("old")
    with pytest.raises(DataError, match="file: cannot be written: No space left on device; free"):
        atomic_write_text(tmp_path / "file", "new", DataError)
    assert (tmp_path / "file").read_text() == "old" and names(tmp_path) == ["file"]
    with atomic_write(tmp_path / "file", durable=False) as stream:
        stream.write(b"new")
    assert (tmp_path / "file").read_text() == "new"


_KILLED = """
import os, signal, sys
from pathlib import Path
from prototxt_gen.file_groups import replace_together
from prototxt_gen.files import atomic_write
with atomic_write("file") as stream:
    stream.write(b"half")
    with replace_together(Path("group")) as folder:
        (folder / "a").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_goes_with_the_next_write(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "file").write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", _KILLED], cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 3 and (tmp_path / "file").read_text() == "old"
    # What a living process writes stays, as does what only looks like a temporary file.
    living = tmp_path / ".file.0123abcd.tmp"
    others = [".file.tmp", ".file.b.0123abcd.tmp", ".other.0123abcd.tmp", "file.0123abcd.tmp"]
    for name in others:
        (tmp_path / name).write_text("")
    with living.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        atomic_write_text(tmp_path / "file", "new")
        with replace_together(tmp_path / "group") as folder:
            (folder / "a").write_text("whole")
        assert names(tmp_path) == sorted([living.name, *others, "a", "file"])
    atomic_write_text(tmp_path / "file", "newer")
    assert names(tmp_path) == sorted([*others, "a", "file"])


def test_two_that_write_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "file") as first:
        first.write(b"first")
        with atomic_write(tmp_path / "file") as second:
            second.write(b"second")
        assert (tmp_path / "file").read_text() == "second"
    assert (tmp_path / "file").read_text() == "first" and names(tmp_path) == ["file"]


# Groups ---------------------------------------------------------------------------------------


def test_a_group_replaces_all_files_and_keeps_what_they_were(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("old")
    (tmp_path / "elsewhere").chmod(0o600)
    (tmp_path / "a").symlink_to("elsewhere")
    (tmp_path / "b").write_text("old")
    (tmp_path / "b").chmod(0o604)
    with replace_together(tmp_path / "group") as folder:
        for name in "abc":
            atomic_write_text(folder / name, name)
        assert (tmp_path / "b").read_text() == "old"
    assert (tmp_path / "a").is_symlink() and (tmp_path / "elsewhere").read_text() == "a"
    assert (permissions(tmp_path / "elsewhere"), permissions(tmp_path / "b")) == (0o600, 0o604)
    assert names(tmp_path) == ["a", "b", "c", "elsewhere"]


def test_a_link_to_another_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real").write_text("old")
    (tmp_path / "a").symlink_to("far/real")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.parent != target.parent and target.parent.name == "far":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with replace_together(tmp_path / "group") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "far" / "real").read_text() == "new" and names(tmp_path) == ["a", "far"]


def test_a_group_that_fails_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(DataError, match=f"^{tmp_path}/b: cannot be written: Is a directory"),
        replace_together(tmp_path / "group", DataError) as folder,
    ):
        (folder / "a").write_text("new")
        (folder / "b").mkdir()
        atomic_write_text(folder / "b", "x", DataError)
    os.mkfifo(tmp_path / "pipe")
    with (
        pytest.raises(DataError, match="pipe is a device or a pipe"),
        replace_together(tmp_path / "group", DataError) as folder,
    ):
        (folder / "a").write_text("new")
        (folder / "pipe").write_text("new")
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a", "pipe"]


def test_a_group_that_was_complete_is_put_in_place_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill between two renames."""
    (tmp_path / "b").write_text("old")
    moves = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        moves.append(self.name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt), replace_together(tmp_path / "group") as folder:
        for name in "abc":
            (folder / name).write_text("new")
    assert moves == ["a", "b"] and (tmp_path / "b").read_text() == "old"
    monkeypatch.undo()
    (left,) = (path for path in tmp_path.iterdir() if path.suffix == COMMITTED)
    assert names(left) == ["b", "c"]
    assert settle(tmp_path, "other") == []
    assert settle(tmp_path, "gr.*") == [left]
    assert names(tmp_path) == ["a", "b", "c"] and (tmp_path / "b").read_text() == "new"


def test_a_destination_describes_the_file_that_exists(tmp_path: Path) -> None:
    assert find_destination(tmp_path / "none").status is None
    assert not find_destination("/dev/null").replaceable
    assert find_destination("/dev/stderr").descriptor == 2
