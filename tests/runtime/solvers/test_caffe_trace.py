"""Repeats a recorded run of original Caffe: losses, weights, log lines, resumption."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import text
from runtime.backend.registry import create_backend
from runtime.logs.glog import GlogFormatter
from runtime.logs.reader import read_log
from runtime.solvers.hooks import Progress, SolverHook
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from runtime.weights.net_weights import copy_trained_layers

TRACE = Path(__file__).parents[2] / "golden" / "traces" / "lenet_step"
# The rounding differs from that of the recorded BLAS, and 50 updates increase the difference. Half
# the digits of float32 is far above the measured 4e-7 and far below an error in the arithmetic.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


class _Losses(SolverHook):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_iteration(self, solver: Solver, progress: Progress) -> None:
        self.seen.append(progress.loss)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(TRACE, tmp_path / "trace")
    monkeypatch.chdir(tmp_path / "trace")
    return tmp_path / "trace"


def _solver() -> tuple[Solver, list[float]]:
    losses = _Losses()
    # The folder has original Caffe's snapshots with the names that this run writes.
    solver = Solver(
        text.read_solver("solver.prototxt"),
        create_backend("cpu"),
        SolverOptions(force=True),
        hooks=[losses],
    )
    return solver, losses.seen


def test_the_run_is_original_caffes(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    solver, losses = _solver()
    copy_trained_layers(solver.net, "init.caffemodel", strict=True)
    caplog.clear()
    solver.solve()
    np.testing.assert_allclose(losses, np.load(TRACE / "loss.npy").ravel(), **CLOSE)
    wanted = np.load(TRACE / "final_params.npz")
    assert len(wanted.files) == 8
    for key in wanted.files:
        name, _, index = key.partition("__")
        layer = solver.net.layer_by_name(name)
        assert layer is not None
        np.testing.assert_allclose(layer.blobs[int(index)].data.host(), wanted[key], **CLOSE)
    _compare_logs(here, caplog.records)


def _compare_logs(here: Path, records: list[logging.LogRecord]) -> None:
    """The lines have the same words, and numbers within the tolerance of the losses."""
    formatter = GlogFormatter()
    lines = [formatter.format(r) for r in records if hasattr(r, "caffe_at")]
    (here / "our.log").write_text("\n".join(lines) + "\n")
    ours, theirs = (_words(here / name) for name in ("our.log", "log.txt"))
    assert ours == theirs
    mine, recorded = read_log(here / "our.log"), read_log(TRACE / "log.txt")
    for a, b in ((mine.train, recorded.train), (mine.test, recorded.test)):
        assert len(a) == len(b) and len(b) in (50, 6)
        for row, other in zip(a, b):
            assert list(row) == list(other)
            for name in set(row) - {"Seconds"}:
                assert row[name] == pytest.approx(other[name], rel=5e-5, abs=1e-5), (row, name)


def _words(path: Path) -> list[str]:
    """The messages of a log, without glog's prefix, paths, speeds and the digits of losses."""
    lines = [re.sub(r"^\S+ \S+ +\d+ ", "", line) for line in path.read_text().splitlines()]
    lines = [re.sub(r"\([^()]* iters\)", "(...)", line).replace("cli/", "") for line in lines]
    return [re.sub(r"loss = [^ )]+|= [^ ]+ loss", "loss", line) for line in lines]


def test_original_caffes_snapshot_is_resumed(here: Path) -> None:
    solver, losses = _solver()
    solver.restore("snap_iter_25.solverstate")
    assert solver.iter == 25
    # The recorded run restarted at the beginning of the data.
    solver.engine.pass_number = 0
    solver.step(25)
    np.testing.assert_allclose(losses, np.load(TRACE / "resume_loss.npy").ravel(), **CLOSE)
