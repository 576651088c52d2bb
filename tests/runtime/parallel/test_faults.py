"""Errors during a run on several replicas: they are reported, and no snapshot is lost."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.lmdb_io import Reader, Writer
from data_prep.prefetch import BatchRequest
from data_prep.sampler import make_sampler
from prototxt_gen import files
from prototxt_gen.errors import DataError, SnapshotError
from runtime.backend.registry import create_backend
from runtime.job.exactness import digest, train_case
from runtime.job.training import TrainJob, TrainResult, train
from runtime.solvers.hooks import SolverHook
from runtime.solvers.snapshot import newest_snapshot

ROOT = Path(__file__).resolve().parents[3]
Trained = Callable[..., str]

TRUNCATED = """
import os, sys
from runtime.cli.main import main
from runtime.parallel.replica import Replica
whole = Replica.compute
def compute(self, first_pass):
    if self.rank == 1 and first_pass >= 4 * 16:
        os.truncate(os.path.join(os.path.dirname(sys.argv[1]), "images", "data.mdb"), 8192)
    return whole(self, first_pass)
Replica.compute = compute
flags = ["--replicas", "2", "--threads", "2", "--watchdog", "20"]
sys.exit(main(["train", "--solver", sys.argv[1], *flags]))
"""


class At(SolverHook):
    """Calls a function after the gradients of an iteration."""

    def __init__(self, iteration: int, act: Callable[[], object]) -> None:
        self.iteration, self.act = iteration, act

    def on_iteration(self, solver: Any, progress: Any) -> None:
        if progress.iteration == self.iteration:
            self.act()


def run(case: Path, replicas: int = 2, *hooks: SolverHook, **others: Any) -> TrainResult:
    def device(param: Any, rank: int = 0) -> Any:
        return create_backend("cpu", threads=1)

    return train(TrainJob(str(case), replicas=replicas, **others), device, hooks, device)


def saved(case: Path) -> str:
    found = newest_snapshot(str(case.parent / "run/exact"))
    assert found is not None
    return found.name


def spoil(case: Path, record: int) -> None:
    """Make a record undecodable in the database of a case."""
    with Reader(case.parent / "images") as reader:
        records = list(reader)
    shutil.rmtree(case.parent / "images")
    with Writer(case.parent / "images") as writer:
        for index, (key, value) in enumerate(records):
            writer.put(key, b"\xff\xff" if index == record else value)


def test_a_corrupt_record_stops_the_run_and_what_was_learnt_is_saved(case: Path) -> None:
    # Read in the third iteration: each reads 32 of the shuffled 96, and tests read the first 80.
    order = make_sampler(96, True, 7)
    number = next(n for n in map(order.record_at, range(64, 96)) if n >= 80)
    spoil(case, number)
    for replicas in (1, 2, 4):
        with pytest.raises(DataError, match=f"record {number:08d}"):
            run(case, replicas)
        assert saved(case) == "exact_iter_2.solverstate"
        shutil.rmtree(case.parent / "run")


def test_a_corrupt_record_is_skipped_with_the_option(
    case: Path, fresh: Trained, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(case, 50)
    sidecar = case.with_name("solver.verydeep.toml")
    sidecar.write_text(sidecar.read_text().replace("workers = 1", 'workers = 1\non_error = "skip"'))
    with caplog.at_level(logging.WARNING, "verydeep.data"):
        found = {fresh(case, replicas) for replicas in (1, 2, 4)}
    assert len(found) == 1
    assert "skipped: record 00000050" in caplog.text


def test_a_full_disk_for_a_while(
    case: Path, fresh: Trained, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full at iteration 3, and not at 6."""
    expected = fresh(case, 1)
    shutil.rmtree(case.parent / "run")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    sync = files.os.fsync
    hooks = (
        At(2, lambda: monkeypatch.setattr(files.os, "fsync", full)),
        At(3, lambda: monkeypatch.setattr(files.os, "fsync", sync)),
    )
    assert digest(run(case, 2, *hooks).files[:2]) == expected
    assert "The run continues without this snapshot" in caplog.text
    assert "No space left on device" in caplog.text
    shutil.rmtree(case.parent / "run")
    with pytest.raises(SnapshotError, match="cannot be written: No space left on device"):
        run(case, 2, *hooks, stop_on_snapshot_error=True)
    assert not list((case.parent / "run").glob("*.caffemodel"))


def test_a_folder_that_becomes_read_only(
    case: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed last snapshot ends the run with an error, and the one before it stays."""

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    with pytest.raises(SnapshotError, match="cannot be written: Read-only file system"):
        run(case, 2, At(4, lambda: monkeypatch.setattr(files.os, "replace", refused)))
    monkeypatch.undo()
    assert saved(case) == "exact_iter_3.solverstate"


def test_a_database_that_is_removed_while_it_is_read(case: Path, fresh: Trained) -> None:
    """An open file stays readable; the next start fails."""
    expected = fresh(case, 1)
    shutil.rmtree(case.parent / "run")
    images = case.parent / "images"
    gone = At(3, lambda: shutil.rmtree(images))
    assert digest(run(case, 2, gone).files[:2]) == expected
    case.write_text(case.read_text().replace("max_iter: 6", "max_iter: 8"))
    with pytest.raises(DataError, match="images: no such database; expected a folder with"):
        train_case(case, 2, snapshot="auto")
    assert saved(case) == "exact_iter_6.solverstate"


def test_a_database_that_is_cut_short_while_it_is_read(case: Path) -> None:
    """A reader with a memory map would be killed by SIGBUS."""
    command = [sys.executable, "-c", TRUNCATED, str(case)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr[-2000:]
    assert "data.mdb has 8192 bytes of" in ended.stderr
    assert "it was cut short while it was read" in ended.stderr
    assert saved(case) in ("exact_iter_3.solverstate", "exact_iter_4.solverstate")


def test_a_worker_that_fails(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_row = BatchRequest.make_row

    def failing(self: BatchRequest, row: int) -> None:
        if self.name[0] == 4 and self.name[1] + row == 20:
            raise ZeroDivisionError("a bug")
        make_row(self, row)

    monkeypatch.setattr(BatchRequest, "make_row", failing)
    with pytest.raises(DataError, match=r"image 20 of iteration 4: ZeroDivisionError\('a bug'\)"):
        run(case, 2)
    assert saved(case) == "exact_iter_4.solverstate"
