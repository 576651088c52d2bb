"""Section 3.3 of the paper, exactly: N replicas write the same bytes as one."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import ProtoError, TrainingError
from runtime.job import exactness
from runtime.job.exactness import main, train_case, write_case
from runtime.parallel import replica, tree
from runtime.weights.caffemodel import read_caffemodel

ROOT = Path(__file__).resolve().parents[3]
Trained = Callable[..., str]

KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.backend.registry import create_backend
from runtime.solvers.hooks import SolverHook
from runtime.job.training import TrainJob, train

class Kill(SolverHook):
    def on_iteration(self, solver, progress):
        if progress.iteration == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

def device(param, rank=0):
    return create_backend("cpu", threads=1)

train(TrainJob(sys.argv[1], snapshot="auto", replicas=int(sys.argv[2])), device, [Kill()], device)
"""


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    "solver_type",
    [
        "SGD",
        "Adam",
        pytest.param("Nesterov", marks=pytest.mark.slow),
        pytest.param("RMSProp", marks=pytest.mark.slow),
        pytest.param("AdaDelta", marks=pytest.mark.slow),
    ],
)
def test_any_number_of_replicas_writes_the_same_bytes(
    tmp_path: Path, fresh: Trained, solver_type: str
) -> None:
    solver = write_case(tmp_path, solver_type)
    assert len({fresh(solver, replicas) for replicas in (1, 2, 4, 8)}) == 1


@pytest.mark.usefixtures("small_chunks")
def test_replicas_in_bf16_write_the_same_bytes(
    case: Path, fresh: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fresh(case, 1)
    rounded = functools.partial(exactness.create_backend, precision="bf16")
    monkeypatch.setattr(exactness, "create_backend", rounded)
    files = {fresh(case, replicas) for replicas in (1, 4)}
    assert len(files) == 1
    assert plain not in files


@pytest.mark.usefixtures("small_chunks")
def test_shards_that_are_no_power_of_two(tmp_path: Path, fresh: Trained) -> None:
    solver = write_case(tmp_path, shards=6)
    net = tmp_path / "net.prototxt"
    net.write_text(net.read_text().replace("batch_size: 16", "batch_size: 18", 1))
    assert len({fresh(solver, replicas) for replicas in (1, 2, 3, 6)}) == 1


def test_another_order_of_adding_gives_other_bytes(
    case: Path, fresh: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fixed tree the two runs of this test differ."""
    expected = fresh(case, 1)
    monkeypatch.setattr(replica, "merges_after", lambda shards, shard, low: int(shard > low))
    assert fresh(case, 1) != expected
    monkeypatch.setattr(replica, "merges_after", tree.merges_after)
    assert fresh(case, 1) == expected


def test_shards_learn_what_a_whole_batch_learns(case: Path, fresh: Trained) -> None:
    """One shard, as in original Caffe, gives the same up to rounding."""
    model = case.parent / "run" / "exact_iter_3.caffemodel"
    # Clipping would hide a wrong scale of the gradient.
    case.write_text(case.read_text().replace("clip_gradients: 2", ""))
    found = []
    for shards in (8, 1):
        sidecar = case.with_name("solver.verydeep.toml")
        sidecar.write_text(sidecar.read_text().replace("shards = 8", f"shards = {shards}"))
        fresh(case, 1)
        blobs = [blob for layer in read_caffemodel(model) for blob in layer.blobs]
        found.append(np.concatenate([blob.array().ravel() for blob in blobs]))
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=2e-5)
    assert np.abs(found[0]).max() > 0.1


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2), (8, 1)])
def test_resumed_on_another_number_of_replicas(
    case: Path, fresh: Trained, before: int, after: int
) -> None:
    expected = fresh(case, 1)
    assert train_case(case, before, snapshot=str(case.parent / "run/exact_iter_3.solverstate"))
    shutil.rmtree(case.parent / "run")
    text = case.read_text()
    case.write_text(text.replace("max_iter: 6", "max_iter: 3"))
    train_case(case, before)
    case.write_text(text)
    assert train_case(case, after, snapshot="auto") == expected


def test_the_snapshot_remembers_the_shards(case: Path, fresh: Trained) -> None:
    expected = fresh(case, 2)
    sidecar = case.with_name("solver.verydeep.toml")
    sidecar.write_text(sidecar.read_text().replace("[parallel]\nshards = 8\n", ""))
    state = str(case.parent / "run/exact_iter_3.solverstate")
    assert train_case(case, 1, snapshot=state) == expected
    with pytest.raises(ProtoError, match="8 shards do not divide among 3 replicas"):
        train_case(case, 3, snapshot=state)


def test_killed_and_resumed(case: Path, fresh: Trained) -> None:
    expected = fresh(case, 1)
    shutil.rmtree(case.parent / "run")
    for replicas, iteration in ((2, 5), (4, 4)):
        command = [sys.executable, "-c", KILLED, str(case), str(replicas), str(iteration)]
        killed = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120)
        assert killed.returncode == -9, killed.stderr.decode()[-2000:]
    assert train_case(case, 8, snapshot="auto") == expected


def test_the_script_prints_one_sum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    *ways, last = capsys.readouterr().out.splitlines()
    sums = dict(way.split(": ", 1) for way in ways)
    mpi = sums.pop("mpirun -n 2")
    assert mpi in (last, "left out: there is no mpirun, or no mpi4py")
    assert list(sums) == [*(f"{n} replica(s)" for n in (1, 2, 4, 8)), "killed and resumed"]
    assert set(sums.values()) == {last} and len(last) == 64


def test_the_script_prints_where_bytes_differ(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exactness, "train_case", lambda solver, replicas, *rest: f"{replicas}")
    monkeypatch.setattr(exactness, "killed_case", lambda *rest: "1")
    monkeypatch.setattr(exactness, "mpi_case", lambda *rest: None)
    assert main([]) == 1
    assert "the bytes differ" in capsys.readouterr().err


def test_a_run_that_is_not_killed_is_no_proof(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness.sys, "executable", "/bin/false")
    with pytest.raises(TrainingError, match="the run to be killed ended with 1; expected -9"):
        exactness.killed_case(case, "cpu")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator is built with g++")
def test_the_emulated_gpu_keeps_the_promise_as_well(case: Path, fresh: Trained) -> None:
    """Devices share no memory, so weights, gradients and history are exchanged."""
    assert len({fresh(case, replicas, device="emu") for replicas in (1, 2, 8)}) == 1
