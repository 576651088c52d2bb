"""Solvers in several processes: the same weights as one process, to the bit where documented."""

from __future__ import annotations

import hashlib
import multiprocessing
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from prototxt_gen.errors import TrainingError, UnsupportedError
from runtime.backend.base import Backend
from runtime.backend.registry import create_backend
from runtime.job.exactness import write_case
from runtime.job.training import TrainJob, train
from runtime.pycaffe.session import SESSION
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import TRAINABLE, solver

FORK = multiprocessing.get_context("fork")
FINISHED = FORK.Event()


def solve(path: str, uid: str, rank: int, count: int, layer_wise: bool, restore: str = "") -> None:
    """One rank's part of a run, in the order of Caffe's own script."""
    caffe.set_mode_cpu()
    caffe.set_solver_count(count)
    caffe.set_solver_rank(rank)
    caffe.set_multiprocess(True)
    caffe.set_dropout_stream("counter")
    made = caffe.SGDSolver(path)
    if restore:
        made.restore(restore)
    nccl = caffe.NCCL(made, uid)
    nccl.bcast()
    made.add_callback(nccl)
    if layer_wise:
        made.net.after_backward(nccl)
    assert len(made.test_nets) == (1 if rank == 0 else 0)
    made.step(made.param.max_iter - made.iter)
    assert made.param.snapshot == 3
    np.savez(Path(path).parent / f"rank{rank}.npz", **arrays(made.net))


def arrays(net: caffe.Net) -> dict[str, Any]:
    return {f"{name}{i}": b.data for name, bs in net.params.items() for i, b in enumerate(bs)}


def start(count: int, work: Callable[..., None], *args: Any) -> list[int | None]:
    """The exit statuses of one process for each rank."""
    uid = caffe.NCCL.new_uid()
    processes = [
        FORK.Process(target=work, args=(args[0], uid, rank, count, *args[1:]), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def weights(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def reference(path: Path, **job: Any) -> list[str]:
    """Digests of the weights and the solver state of a run in one process."""

    def open_backend(param: Any, rank: int = 0) -> Backend:
        return create_backend("cpu", 0, threads=1)

    shutil.rmtree(path.parent / "run", ignore_errors=True)
    result = train(TrainJob(path, **job), open_backend, (), open_backend)
    return [weights(file) for file in result.files[:2]]


def snapshot_digests(folder: Path, iteration: int = 6) -> list[str]:
    stem = folder / "run" / f"exact_iter_{iteration}"
    return [weights(stem.with_suffix(suffix)) for suffix in (".caffemodel", ".solverstate")]


@pytest.mark.parametrize(
    ("count", "layer_wise"), [(2, True), pytest.param(3, False, marks=pytest.mark.slow)]
)
def test_processes_give_the_bits_of_replicas_in_one_process(
    tmp_path: Path, count: int, layer_wise: bool
) -> None:
    path = write_case(tmp_path)
    expected = reference(path, replicas=count, batch_semantics="per-gpu")
    shutil.rmtree(tmp_path / "run")
    assert start(count, solve, str(path), layer_wise) == [0] * count
    assert snapshot_digests(tmp_path) == expected
    ranks = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(count)]
    for name in ranks[0]:
        assert all(np.array_equal(ranks[0][name], other[name]) for other in ranks[1:])


def test_processes_give_the_bits_of_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    path = write_case(tmp_path, shards=2)
    assert start(2, solve, str(path), False) == [0, 0]
    ranks = snapshot_digests(tmp_path)
    net = tmp_path / "net.prototxt"
    # The test net keeps its batch: its data layer follows that of the train net.
    text = net.read_text().replace("batch_size: 16", "batch_size: 32", 1)
    net.write_text(text)
    assert reference(path)[0] == ranks[0]


@pytest.mark.slow
def test_a_resumed_run_gives_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    path = write_case(tmp_path)
    assert start(2, solve, str(path), False) == [0, 0]
    whole = snapshot_digests(tmp_path)
    for file in (tmp_path / "run").glob("exact_iter_6*"):
        file.unlink()
    state = tmp_path / "run" / "exact_iter_3.solverstate"
    assert start(2, solve, str(path), True, str(state)) == [0, 0]
    assert snapshot_digests(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Nesterov", "Adam"])
def test_solve_tests_and_writes_snapshots_on_rank_0(tmp_path: Path, kind: str) -> None:
    path = write_case(tmp_path, solver_type=kind, iterations=5, snapshot=2)
    expected = reference(path, replicas=2, batch_semantics="per-gpu")
    shutil.rmtree(tmp_path / "run")

    def work(path: str, uid: str, rank: int, count: int) -> None:
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        caffe.set_dropout_stream("counter")
        made = caffe.get_solver(path)
        assert made.core.rule.type == kind
        nccl = caffe.NCCL(made, uid)
        made.add_callback(nccl)
        nccl.bcast()
        made.solve()
        assert made.iter == 5

    assert start(2, work, str(path)) == [0, 0]
    assert snapshot_digests(tmp_path, 5) == expected


def test_gradients_and_losses_are_the_means_over_ranks(write: Write, tmp_path: Path) -> None:
    path = write(solver(write(TRAINABLE), "random_seed: 5 display: 1"))

    def work(path: str, uid: str, rank: int, count: int) -> None:
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        made = caffe.SGDSolver(path)
        nccl = caffe.NCCL(made, uid)
        nccl.bcast()
        np.save(f"start{rank}.npy", made.net.params["conv"][0].data)
        seen: list[Any] = []
        made.add_callback(
            lambda: None,
            lambda: seen.append(made.net.params["conv"][0].diff.copy()),
        )
        made.add_callback(nccl)
        made.add_callback(nccl)
        made.add_callback(
            lambda: "",
            lambda: seen.append(made.net.params["conv"][0].diff.copy()),
        )
        made.step(1)
        loss = float(made.net.blobs["loss"].data)
        np.savez(f"seen{rank}.npz", own=seen[0], mean=seen[1], loss=loss)
        np.save(f"total{rank}.npy", made.core.progress.loss)

    assert start(3, work, path) == [0, 0, 0]
    starts = [np.load(f"start{rank}.npy") for rank in range(3)]
    assert all(np.array_equal(starts[0], other) for other in starts)
    seen = [np.load(f"seen{rank}.npz") for rank in range(3)]
    own = [s["own"] for s in seen]
    assert not np.array_equal(own[0], own[1])  # the ranks draw other images
    for s in seen:
        assert np.array_equal(s["mean"], seen[0]["mean"])
        np.testing.assert_allclose(s["mean"], np.mean(own, axis=0), rtol=1e-4, atol=1e-7)
    losses = [float(s["loss"]) for s in seen]
    for rank in range(3):
        assert float(np.load(f"total{rank}.npy")) == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.slow
def test_arrays_of_devices_are_averaged_as_those_of_the_host(write: Write) -> None:
    path = write(solver(write(TRAINABLE), "random_seed: 5"))

    def work(path: str, uid: str, rank: int, count: int, mode: str) -> None:
        SESSION.set_mode(mode)
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        made = caffe.SGDSolver(path)
        nccl = caffe.NCCL(made, uid)
        nccl.bcast()
        made.add_callback(nccl)
        made.net.after_backward(nccl)
        made.step(2)
        np.savez(f"{mode}{rank}.npz", **arrays(made.net))

    assert start(2, work, path, "cpu") == [0, 0]
    assert start(2, work, path, "emu") == [0, 0]
    host, first, second = (np.load(f"{name}.npz") for name in ("cpu0", "emu0", "emu1"))
    for name in host:
        assert np.array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], host[name], rtol=1e-4, atol=1e-6)


def test_a_rank_that_fails_ends_the_others(write: Write) -> None:
    path = write(solver(write(TRAINABLE)))

    def work(path: str, uid: str, rank: int, count: int) -> None:
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        made = caffe.SGDSolver(path)
        nccl = caffe.NCCL(made, uid)
        made.add_callback(nccl)
        if rank == 1:
            return
        with pytest.raises(TrainingError, match="rank 0: rank 1 has ended"):
            made.step(3)

    assert start(2, work, path) == [0, 0]


def test_an_error_on_a_rank_ends_the_others_while_its_process_lives(write: Write) -> None:
    path = write(solver(write(TRAINABLE)))

    def work(path: str, uid: str, rank: int, count: int) -> None:
        caffe.set_solver_count(count)
        caffe.set_solver_rank(rank)
        made = caffe.SGDSolver(path)
        nccl = caffe.NCCL(made, uid)
        made.add_callback(nccl)

        def fail(layer: int) -> None:
            raise KeyError("own error")

        if rank == 1:
            made.net.before_forward(fail)
        with pytest.raises(KeyError if rank else TrainingError, match=r"own|rank 0: rank 1 has"):
            made.step(3)
        if rank == 1:
            FINISHED.wait(30)
        FINISHED.set()

    assert start(2, work, path) == [0, 0]


def test_one_rank_needs_no_others(write: Write) -> None:
    made = caffe.SGDSolver(write(solver(write(TRAINABLE))))
    nccl = caffe.NCCL(made, caffe.NCCL.new_uid())
    nccl.bcast()
    made.add_callback(nccl)
    made.net.after_backward(nccl)
    made.step(2)
    assert made.iter == 2
    assert caffe.has_nccl()
    assert caffe.NCCL.new_uid() != caffe.NCCL.new_uid()
    assert isinstance(caffe.NCCL.new_uid(), bytes)  # as in Caffe with Python 3


def test_calls_that_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(solver(write(TRAINABLE)))
    first, second = caffe.SGDSolver(path), caffe.SGDSolver(path)
    with pytest.raises(RuntimeError, match="NCCL: a Net is not a solver; expected NCCL"):
        caffe.NCCL(first.net, "uid")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="alone; expected two functions"):
        first.add_callback(lambda: None)
    second.add_callback(caffe.NCCL(first, "uid"))
    with pytest.raises(RuntimeError, match="added to another solver than it was made for"):
        second.step(1)
    for rank, count in ((1, 1), (-1, 2), (0, 0)):
        caffe.set_solver_rank(rank)
        caffe.set_solver_count(count)
        with pytest.raises(
            RuntimeError, match=f"solver_rank is {rank} and solver_count is {count}"
        ):
            caffe.SGDSolver(path)
    caffe.set_solver_rank(1)
    caffe.set_solver_count(2)
    follower = caffe.SGDSolver(path)
    with pytest.raises(RuntimeError, match="snapshot: called on rank 1; expected rank 0"):
        follower.snapshot()
    monkeypatch.setattr(caffe.NCCL, "patience", 0.05)
    with pytest.raises(TrainingError, match=r"rank 1: waited 0.05 s for rank\(s\) 0"):
        caffe.NCCL(follower, caffe.NCCL.new_uid())
    monkeypatch.setattr(caffe.NCCL, "patience", 1800)
    monkeypatch.setattr(caffe.NCCL, "connect_patience", 0.06)
    with pytest.raises(
        TrainingError, match=r"rank 1: waited 0.06 s for rank\(s\) 0; .* NCCL.connect_patience"
    ):
        caffe.NCCL(follower, caffe.NCCL.new_uid())
    Path(path).with_suffix(".verydeep.toml").write_text(
        '[schedule]\nmetric = "loss"\nmode = "min"\n'
    )
    written = Path(path).read_text()
    Path(path).write_text(re.sub(r'lr_policy: "\w+"', 'lr_policy: "multistep"', written))
    with pytest.raises(UnsupportedError, match="the sidecar's schedule depends on tests"):
        caffe.SGDSolver(path)


@pytest.mark.parametrize("uid", ["", b"", bytearray(), None, 7])
@pytest.mark.parametrize("count", [1, 2])
def test_a_uid_is_needed(uid: Any, count: int, write: Write) -> None:
    caffe.set_solver_count(count)
    made = caffe.SGDSolver(write(solver(write(TRAINABLE))))
    with pytest.raises(RuntimeError, match=r"NCCL: uid .*; expected the value of NCCL.new_uid\(\)"):
        caffe.NCCL(made, uid)


def test_a_rank_without_nccl_trains_alone_on_its_part(write: Write) -> None:
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    made = caffe.SGDSolver(write(solver(write(TRAINABLE))))
    made.step(2)
    assert (made.iter, made.core.engine.pass_number) == (2, 4)
    assert made.net.core.context.pass_number == 4


SCRIPT = """
import multiprocessing, sys
import runtime.pycaffe
runtime.pycaffe.install_as_caffe()
import caffe

def solve(proto, ranks, uid, rank):
    caffe.set_mode_cpu()
    caffe.set_solver_count(ranks)
    caffe.set_solver_rank(rank)
    caffe.set_multiprocess(True)
    solver = caffe.SGDSolver(proto)
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    if rank == 0:
        clock, reduction = caffe.Timer(), caffe.Timer()
        layers = [caffe.Timer() for _ in solver.net.layers]
        solver.net.before_forward(lambda layer: layers[layer].start())
        solver.net.after_forward(lambda layer: layers[layer].stop())
        solver.add_callback(clock.start, lambda: (clock.stop(), reduction.start()))
        solver.add_callback(nccl)
        solver.add_callback(lambda: "", lambda: (reduction.stop(), caffe.log("averaged")))
    else:
        solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    solver.step(solver.param.max_iter)
    if rank == 0:
        solver.snapshot()
        print("done", solver.iter)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    caffe.init_log()
    caffe.log("Using devices 0, 1")
    uid = caffe.NCCL.new_uid()
    all = [multiprocessing.Process(target=solve, args=(sys.argv[1], 2, uid, r)) for r in (0, 1)]
    for process in all:
        process.daemon = True
        process.start()
    for process in all:
        process.join()
    sys.exit(max(process.exitcode for process in all))
"""


@pytest.mark.slow
def test_a_script_of_the_form_of_caffes_own(write: Write, tmp_path: Path) -> None:
    path = write(solver(write(TRAINABLE), "display: 1"))
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", path], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done 6"
    assert "Using devices 0, 1" in done.stderr
    assert "different seeds" in done.stderr
    assert (tmp_path / "snap_iter_6.caffemodel").exists()
