"""Snapshots: exact resumption, incomplete and corrupt snapshots, and a full disk."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import DataError, ProtoError, SnapshotError
from prototxt_gen.sidecar import PlateauOptions, Sidecar
from runtime.solvers.hooks import SolverHook
from runtime.solvers.options import SolverOptions
from runtime.solvers.resume_state import ResumeState
from runtime.solvers.snapshot import files_of, newest_snapshot, prune_snapshots, seed_of
from runtime.solvers.solver import Solver
from tests.runtime.solvers.toy import (
    CLASSIFIER,
    LEAST_SQUARES,
    history,
    make_solver,
    prefix,
    same,
    solver_param,
    weights,
)

BASE = "weight_decay: 0.01 iter_size: 2 max_iter: 12 test_iter: 2 test_interval: 3"


def _make(folder: Path, fields: str, **more: Any) -> Solver:
    return make_solver(f"{BASE} {fields} {prefix(folder)}", CLASSIFIER, 8, **more)


@pytest.mark.parametrize(
    "fields",
    [
        "momentum: 0.9",
        "momentum: 0.9 snapshot_format: HDF5",
        "momentum: 0.9 lr_policy: 'multistep' gamma: 0.5 stepvalue: 2 stepvalue: 4 stepvalue: 8",
        "momentum: 0.9 type: 'Nesterov'",
        "type: 'AdaGrad'",
        "type: 'RMSProp'",
        "momentum: 0.9 type: 'AdaDelta'",
        "momentum: 0.9 type: 'Adam' snapshot_diff: true",
    ],
)
def test_resumed_is_straight_bit_for_bit(fields: str, tmp_path: Path) -> None:
    straight = _make(tmp_path / "a", fields)
    straight.solve()
    first = _make(tmp_path / "b", fields)
    first.step(5)
    _, state, _ = first.snapshot()
    second = _make(tmp_path / "b", fields)
    second.solve(state)
    assert second.iter == 12
    assert same(weights(straight), weights(second))
    assert same(history(straight), history(second))
    for ending in ("caffemodel", "solverstate"):
        suffix = ".h5" if "HDF5" in fields else ""
        a, b = (tmp_path / f / f"toy_iter_12.{ending}{suffix}" for f in "ab")
        if not suffix and ending == "caffemodel":
            assert a.read_bytes() == b.read_bytes()
        assert a.exists() and b.exists()
    assert straight.best.to_json() == second.best.to_json()
    assert straight.tests.passes == second.tests.passes


def test_a_snapshot_at_a_test_comes_before_it(tmp_path: Path) -> None:
    straight = _make(tmp_path / "a", "")
    straight.step(8)
    first = _make(tmp_path / "b", "")
    first.step(6)
    state = first.snapshot()[1]
    second = _make(tmp_path / "b", "")
    second.restore(state)
    second.step(2)
    assert same(weights(straight), weights(second))
    assert straight.tests.passes == second.tests.passes


def test_the_plateau_continues(tmp_path: Path) -> None:
    schedule = PlateauOptions(metric="accuracy", patience=1, factor=0.5, min_delta=0.2)
    options = SolverOptions(sidecar=Sidecar(schedule=schedule))
    straight = _make(tmp_path / "a", "", options=options)
    straight.solve()
    first = _make(tmp_path / "b", "", options=options)
    first.step(7)
    second = _make(tmp_path / "b", "", options=options)
    second.solve(first.snapshot()[1])
    assert straight.plateau is not None and second.plateau is not None
    assert straight.plateau.state == second.plateau.state
    assert straight.plateau.state.drops > 0
    assert same(weights(straight), weights(second))


def test_original_caffes_files_are_enough(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    straight = _make(tmp_path / "a", "")
    straight.solve()
    first = _make(tmp_path / "b", "")
    first.step(5)
    _, state, ours = first.snapshot()
    ours.unlink()
    second = _make(tmp_path / "b", "")
    second.restore(state)
    assert second.engine.pass_number == 10
    assert "has no .state.json: the data continues at pass 10" in caplog.text
    second.solve()
    assert same(weights(straight), weights(second))


def test_what_original_caffe_reads(tmp_path: Path) -> None:
    solver = _make(tmp_path, "type: 'Adam'")
    solver.step(2)
    _, path, _ = solver.snapshot()
    state = proto.SolverState.FromString(path.read_bytes())
    assert (state.iter, state.current_step, len(state.history)) == (2, 0, 8)
    assert state.learned_net == f"{tmp_path}/toy_iter_2.caffemodel"
    for blob, values in zip(state.history, history(solver)):
        assert tuple(blob.shape.dim) == values.shape
        np.testing.assert_array_equal(np.array(blob.data, np.float32), values.ravel())
    net = proto.NetParameter.FromString((tmp_path / "toy_iter_2.caffemodel").read_bytes())
    assert [len(layer.blobs) for layer in net.layer if layer.blobs] == [2, 2]


def test_weights_are_found_next_to_the_state_when_moved(tmp_path: Path) -> None:
    solver = _make(tmp_path / "a", "")
    solver.step(1)
    _, path, _ = solver.snapshot()
    shutil.move(tmp_path / "a", tmp_path / "c")
    moved = tmp_path / "c" / path.name
    again = _make(tmp_path / "b", "")
    again.restore(moved, strict=True)
    assert same(weights(again), weights(solver))
    moved.with_name("toy_iter_1.caffemodel").unlink()
    with pytest.raises(SnapshotError, match=r"toy_iter_1\.caffemodel is missing"):
        again.restore(moved, strict=True)
    with pytest.raises(SnapshotError, match="its weights are missing; expected"):
        again.restore(moved)


def _three_snapshots(folder: Path) -> tuple[Solver, str]:
    solver = _make(folder, "snapshot: 2")
    solver.step(6)
    return solver, f"{folder}/toy"


def test_auto_takes_the_newest(tmp_path: Path) -> None:
    _, stem = _three_snapshots(tmp_path)
    assert newest_snapshot(stem) == tmp_path / "toy_iter_6.solverstate"
    assert newest_snapshot(f"{tmp_path}/other") is None
    # `toy_iter` is also the beginning of another prefix.
    assert newest_snapshot(f"{tmp_path}/to") is None


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, Any] = {
    "is corrupt: its SHA-256": lambda p: _flip(p / "toy_iter_6.caffemodel"),
    "is corrupt": lambda p: _flip(p / "toy_iter_6.solverstate"),
    "bytes, ": lambda p: (p / "toy_iter_6.solverstate").write_bytes(b"\x08\x06"),
    "toy_iter_6.caffemodel is missing": lambda p: (p / "toy_iter_6.caffemodel").unlink(),
    "it was not finished": lambda p: (p / "toy_iter_6.state.json").unlink(),
    "cannot be read": lambda p: (p / "toy_iter_6.state.json").write_text("{"),
    "damaged": lambda p: (p / "toy_iter_6.state.json").write_text('{"format": 1, "iteration": 6}'),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_auto_skips_a_damaged_one_and_logs_it(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, stem = _three_snapshots(tmp_path)
    DAMAGES[what](tmp_path)
    assert newest_snapshot(stem) == tmp_path / "toy_iter_4.solverstate"
    assert f"Snapshot {tmp_path}/toy_iter_6.solverstate is passed over" in caplog.text
    assert what in caplog.text


def test_auto_takes_original_caffes(tmp_path: Path) -> None:
    _, stem = _three_snapshots(tmp_path)
    for path in tmp_path.glob("*.state.json"):
        path.unlink()
    assert newest_snapshot(stem) == tmp_path / "toy_iter_6.solverstate"


def test_a_named_snapshot_that_is_corrupt_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver, _ = _three_snapshots(tmp_path)
    _flip(tmp_path / "toy_iter_4.caffemodel")
    path = tmp_path / "toy_iter_4.solverstate"
    before = weights(solver)
    with pytest.raises(SnapshotError, match=r"torn or corrupt: .*use the one before it"):
        solver.restore(path, strict=True)
    assert same(before, weights(solver)) and solver.iter == 6
    # A user may have copied original Caffe's files to these names.
    solver.restore(path)
    assert solver.iter == 4
    assert "does not belong to this snapshot and is ignored" in caplog.text


def test_a_snapshot_of_another_net_or_type_is_refused(tmp_path: Path) -> None:
    solver = _make(tmp_path, "")
    solver.step(1)
    _, path, _ = solver.snapshot()
    with pytest.raises(SnapshotError, match=r"Incorrect length of history blobs.*Adam over 4"):
        _make(tmp_path / "b", "type: 'Adam'").restore(path)
    with pytest.raises(SnapshotError, match=r"cannot be read|missing"):
        solver.restore(tmp_path / "toy_iter_99.solverstate")


def test_keep_removes_the_oldest(tmp_path: Path) -> None:
    solver = _make(tmp_path, "snapshot: 2", options=SolverOptions(keep=2))
    solver.step(8)
    names = {path.name.split(".")[0] for path in tmp_path.iterdir()}
    assert names == {"toy_iter_6", "toy_iter_8"}
    # Incomplete snapshots are kept.
    (tmp_path / "toy_iter_6.state.json").unlink()
    prune_snapshots(f"{tmp_path}/toy", 1)
    assert (tmp_path / "toy_iter_6.solverstate").exists()


def test_a_disk_that_takes_no_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    for stop in (False, True):
        solver = _make(folder, "snapshot: 2", options=SolverOptions(stop_on_snapshot_error=stop))
        shutil.rmtree(folder)
        folder.write_text("in the way")
        if stop:
            with pytest.raises(SnapshotError, match="cannot be written"):
                solver.step(2)
        else:
            solver.step(3)
            assert "The run continues without this snapshot" in caplog.text
            with pytest.raises(SnapshotError, match="cannot be written"):
                solver.solve()
        folder.unlink()


@pytest.mark.parametrize("step", ["save", "write_solverstate", "sum_files", "ResumeState.write"])
@pytest.mark.parametrize("error", [SnapshotError("no space left on device"), KeyboardInterrupt()])
def test_whenever_it_is_broken_off_the_one_before_it_stays(
    step: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, stem = _three_snapshots(tmp_path)

    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"runtime.solvers.snapshot.{step}", broken)
    if isinstance(error, SnapshotError):
        solver.step(2)
    else:
        with pytest.raises(KeyboardInterrupt):
            solver.step(2)
    monkeypatch.undo()
    assert newest_snapshot(stem) == tmp_path / "toy_iter_6.solverstate"
    _make(tmp_path, "").restore(tmp_path / "toy_iter_6.solverstate", strict=True)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _whole(*iterations: int) -> list[str]:
    kinds = ("caffemodel", "solverstate", "state.json")
    return sorted(f"toy_iter_{n}.{kind}" for n in iterations for kind in kinds)


@pytest.mark.parametrize("fields", ["", "snapshot_format: HDF5"])
def test_a_full_disk_leaves_no_part_of_a_snapshot(
    fields: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If any of its files cannot be written, the earlier snapshot with its name stays."""
    first = _make(tmp_path, fields)
    first.step(2)
    names = sorted(path.name for path in first.snapshot())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(before) == names
    sync = os.fsync
    for room in range(3):
        taken = []

        def full(handle: int, room: int = room, taken: list[int] = taken) -> None:
            taken.append(handle)
            if len(taken) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        monkeypatch.setattr(os, "fsync", full)
        solver = _make(tmp_path, f"{fields} momentum: 0.5 snapshot: 2")
        solver.step(2)
        assert f"{tmp_path}/toy_iter_2." in caplog.text and "No space left" in caplog.text
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        caplog.clear()


_KILLED = """
import os, signal, sys
from pathlib import Path
import runtime.solvers.snapshot as snapshot
from tests.runtime.solvers.toy import CLASSIFIER, make_solver
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
solver = make_solver(f"max_iter: 9 snapshot: 2 snapshot_prefix: '{sys.argv[1]}/toy'", CLASSIFIER, 8)
solver.step(3)
snapshot.write_solverstate = kill
solver.step(3)
"""


def test_what_a_killed_run_left_goes_with_the_next_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [name for name in _files(tmp_path) if name not in _whole(2)]
    assert len(left) == 1 and left[0].startswith(".toy_iter_4.")
    # As an earlier version left them.
    (tmp_path / ".toy_iter_4.caffemodel.k3_x0000.tmp").write_bytes(b"half")
    others = [".toy_iter_4.tmp", ".other_iter_4.k3_x0000.tmp", ".toy2_iter_4.k3_x0000.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    assert newest_snapshot(f"{tmp_path}/toy") == tmp_path / "toy_iter_2.solverstate"
    assert _files(tmp_path) == sorted([*_whole(2), *others])


def test_a_snapshot_that_was_complete_when_the_run_was_killed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver, stem = _three_snapshots(tmp_path)
    move = Path.replace
    for kept in range(3):
        moved = []

        def replace(self: Path, target: Path, kept: int = kept, moved: list[Path] = moved) -> Path:
            if self.parent.suffix == ".commit":
                if len(moved) == kept:
                    raise KeyboardInterrupt
                moved.append(self)
            return move(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            solver.step(2)
        monkeypatch.undo()
        newest = newest_snapshot(stem)
        assert newest == tmp_path / f"toy_iter_{solver.iter}.solverstate"
        _make(tmp_path, "").restore(newest, strict=True)
        assert [name for name in _files(tmp_path) if name.startswith(".")] == []


def test_keep_removes_what_is_left_of_older_snapshots(tmp_path: Path) -> None:
    _, stem = _three_snapshots(tmp_path)
    log = Path(f"{stem}.log.jsonl")
    names = [str(tmp_path / name) for name in _whole(2)]
    log.write_text(json.dumps({"event": "snapshot", "iteration": 2, "files": names}) + "\n")
    (tmp_path / "toy_iter_2.state.json").unlink()
    # No file of this program names these.
    for name in ("toy_iter_1.caffemodel", "toy_iter_3.solverstate"):
        (tmp_path / name).write_bytes(b"somebody's")
    (tmp_path / ".toy_iter_5.00000000.tmp").mkdir()
    prune_snapshots(stem, 1)
    others = ["toy.log.jsonl", "toy_iter_1.caffemodel", "toy_iter_3.solverstate"]
    assert _files(tmp_path) == sorted([*others, *_whole(6)])


# Files of other programs --------------------------------------------------------------

CAREFUL = SolverOptions(force=False)


@pytest.mark.parametrize("name", ["caffemodel", "solverstate", "state.json"])
@pytest.mark.parametrize("iteration", [4, 12])
def test_a_file_of_another_program_is_refused_before_the_first_iteration(
    name: str, iteration: int, tmp_path: Path
) -> None:
    path = tmp_path / f"toy_iter_{iteration}.{name}"
    path.write_bytes(b"original Caffe's")
    solver = _make(tmp_path, "snapshot: 4", options=CAREFUL)
    with pytest.raises(SnapshotError, match=rf"{name}: exists, and this program did not .*--force"):
        solver.solve()
    assert solver.iter == 0 and path.read_bytes() == b"original Caffe's"
    solver.step(3)
    if iteration == 4:
        # Solver.step fails at the snapshot, and the file stays.
        solver.step(2)
        assert path.read_bytes() == b"original Caffe's"
    # As in original Caffe, and with `--force`.
    _make(tmp_path, "snapshot: 4").solve()
    assert newest_snapshot(f"{tmp_path}/toy") == tmp_path / "toy_iter_12.solverstate"
    assert path.read_bytes() != b"original Caffe's"


def test_files_that_no_snapshot_of_this_run_replaces_are_no_matter(tmp_path: Path) -> None:
    names = ["toy_iter_3.caffemodel", "toy_iter_16.caffemodel", "toy_iter_4.caffemodel.h5"]
    for name in [*names, "toy_iter_x.caffemodel", "toys_iter_4.caffemodel"]:
        (tmp_path / name).write_bytes(b"somebody's")
    _make(tmp_path, "snapshot: 4", options=CAREFUL).solve()
    assert all((tmp_path / name).read_bytes() == b"somebody's" for name in names)


@pytest.mark.parametrize("what", DAMAGES)
def test_the_own_files_are_replaced_also_when_damaged(what: str, tmp_path: Path) -> None:
    _, stem = _three_snapshots(tmp_path)
    names = [str(tmp_path / name) for name in _whole(6)]
    event = {"event": "snapshot", "iteration": 6, "files": names}
    Path(f"{stem}.log.jsonl").write_text(json.dumps(event) + "\n")
    DAMAGES[what](tmp_path)
    again = _make(tmp_path, "snapshot: 2", options=CAREFUL)
    again.solve(newest_snapshot(stem))
    _make(tmp_path, "").restore(tmp_path / "toy_iter_6.solverstate", strict=True)


def test_an_empty_file_is_free_and_a_pipe_is_not(tmp_path: Path) -> None:
    (tmp_path / "toy_iter_4.caffemodel").touch()
    os.mkfifo(tmp_path / "toy_iter_12.caffemodel")
    with pytest.raises(SnapshotError, match=r"toy_iter_12\.caffemodel: exists"):
        _make(tmp_path, "snapshot: 4", options=CAREFUL).solve()
    solver = _make(tmp_path, "snapshot: 4")
    with pytest.raises(SnapshotError, match=r"toy_iter_12\.caffemodel is a device or a pipe"):
        solver.solve()
    assert (tmp_path / "toy_iter_4.caffemodel").stat().st_size > 0


@pytest.mark.parametrize("prefix", ["a\\000b", "x" * 300, "\\377"])
def test_a_prefix_that_no_file_can_have(prefix: str, tmp_path: Path) -> None:
    with pytest.raises((SnapshotError, ProtoError), match=r"Cannot write|not UTF-8"):
        make_solver(f"max_iter: 1 snapshot_prefix: '{tmp_path}/{prefix}'", CLASSIFIER, 8)


class _Broken(SolverHook):
    """Data that cannot be read from the second pass of the third iteration on."""

    def __init__(self, pass_number: int) -> None:
        self.pass_number = pass_number

    def on_solve(self, solver: Solver) -> None:
        def check(layer: int) -> None:
            if solver.net.context.pass_number == self.pass_number:
                raise DataError("record 7: corrupt")

        solver.net.before_forward.append(check)


def test_an_error_in_the_data_loses_nothing(tmp_path: Path) -> None:
    straight = _make(tmp_path / "a", "")
    straight.solve()
    broken = _make(tmp_path / "b", "", hooks=(_Broken(7),))
    with pytest.raises(DataError, match="record 7"):
        broken.solve()
    state = newest_snapshot(f"{tmp_path}/b/toy")
    assert state is not None and state.name == "toy_iter_3.solverstate"
    again = _make(tmp_path / "b", "")
    again.solve(state)
    assert same(weights(straight), weights(again))


def test_the_prefix_is_tried_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SnapshotError, match=r"Cannot write to snapshot prefix '.*file/toy'"):
        _make(tmp_path / "file", "snapshot: 5")
    with pytest.raises(SnapshotError, match="snapshot is specified but snapshot_prefix is not"):
        make_solver("snapshot: 5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_the_seed_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    solver = _make(tmp_path, "random_seed: -1")
    solver.step(1)
    _, path, state = solver.snapshot()
    assert f"random_seed is not set; this run's is {solver.seed}" in caplog.text
    assert seed_of(path) == solver.seed == ResumeState.read(state).seed
    again = _make(tmp_path, "random_seed: -1", options=SolverOptions(seed=seed_of(path)))
    again.restore(path)
    assert again.net.context.seed == solver.seed and "otherwise" not in caplog.text
    other = _make(tmp_path, "random_seed: 6")
    other.restore(path)
    assert f"had the seed {solver.seed} and this one has 6" in caplog.text
    state.unlink()
    assert seed_of(path) is None


def test_the_clock_fits_another_number_of_shards(tmp_path: Path) -> None:
    solver = _make(tmp_path, "")
    solver.step(3)
    _, path, state = solver.snapshot()
    values = json.loads(state.read_text())
    state.write_text(json.dumps({**values, "shards": 2, "train_pass": 12}))
    solver.restore(path)
    assert solver.engine.pass_number == 6


def test_files_of_a_snapshot(tmp_path: Path) -> None:
    assert [p.name for p in files_of(tmp_path / "a_iter_3.solverstate.h5")] == [
        "a_iter_3.caffemodel.h5",
        "a_iter_3.solverstate.h5",
        "a_iter_3.state.json",
    ]
    assert files_of(tmp_path / "other") == ()


def test_no_snapshot_where_none_is_wanted(tmp_path: Path) -> None:
    param = solver_param(f"max_iter: 1 snapshot_after_train: false {prefix(tmp_path)}")
    assert not param.snapshot_after_train
    solver = make_solver(f"max_iter: 1 snapshot_after_train: false {prefix(tmp_path)}")
    solver.solve()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["ip/0", "/ip", "..", "", "ip"])
def test_names_that_hdf5_does_not_hold_are_refused_at_the_start(name: str, tmp_path: Path) -> None:
    second = (
        'layer {{ name: "NAME" type: "InnerProduct" bottom: "data" top: "other" '
        "inner_product_param {{ num_output: 2 }} }}"
    )
    net = LEAST_SQUARES + second.replace("NAME", name)
    fields = f"snapshot_prefix: '{tmp_path}/s' snapshot_after_train: true snapshot_format: "
    with pytest.raises(SnapshotError, match="solver: snapshot_format HDF5: "):
        make_solver(fields + "HDF5", net)
    assert list(tmp_path.iterdir()) == []
    make_solver(fields + "BINARYPROTO", net).snapshot()
