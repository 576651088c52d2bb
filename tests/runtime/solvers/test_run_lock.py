"""The lock on the files of a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prototxt_gen.errors import SnapshotError
from runtime.solvers import run_lock
from runtime.solvers.run_lock import lock_run

ROOT = Path(__file__).parents[3]
HOLD = """
import os, sys, time
from runtime.solvers.run_lock import lock_run
with lock_run(sys.argv[1]):
    if sys.argv[2] == "fork" and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    if sys.argv[2] == "spawn":
        import subprocess
        print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    if sys.argv[2] == "alone":
        print(0, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["alone", "fork", "spawn"])
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock, alone or with a child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "p"), request.param],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    if child:
        os.kill(child, signal.SIGKILL)


def test_the_lock_ends_with_its_owner(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    message = rf"p: another run \(process {owner.pid} on .*\) writes these"
    with pytest.raises(SnapshotError, match=message), lock_run(tmp_path / "p"):
        pass
    owner.kill()
    owner.wait()
    _wait_for_children()
    with lock_run(tmp_path / "p"):
        assert (tmp_path / "p.run.lock").exists()
    assert not (tmp_path / "p.run.lock").exists()


def _wait_for_children() -> None:
    # A child closes its copy of the descriptor just after the fork.
    time.sleep(0.05)


def test_one_prefix_under_two_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with lock_run(tmp_path / "p"):
        for name in ("p", "./p", "link/p"):
            with pytest.raises(SnapshotError, match="another run"), lock_run(name):
                pass
        with lock_run("q", "new/p"):
            pass


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), lock_run(tmp_path / "p"):
        raise ValueError("x")
    with lock_run(tmp_path / "p"):
        pass


def test_a_file_of_another_program_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "p.run.lock").write_text("notes")
    with lock_run(tmp_path / "p"):
        pass
    assert (tmp_path / "p.run.lock").read_text() == "notes"


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "no folder"])
def test_what_cannot_be_locked_is_a_warning(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "p.run.lock"
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "p.run.lock"
    with lock_run(str(path).removesuffix(".run.lock")):
        pass
    assert "cannot be locked" in caplog.text and "a second run" in caplog.text


def test_a_file_system_without_locks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with lock_run(tmp_path / "p"):
        pass
    assert "No locks available" in caplog.text
    assert run_lock.SUFFIX == ".run.lock"


def test_a_read_only_folder_is_the_reason_that_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = os.open

    def refuse_creation(path: object, flags: int, *args: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *args)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", refuse_creation)
    with lock_run(tmp_path / "s"):
        pass
    assert "cannot be locked: Permission denied" in caplog.text
