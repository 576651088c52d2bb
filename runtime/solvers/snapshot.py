"""Snapshots: written whole or not at all, found again, resumed from.

P_iter_N.caffemodel and P_iter_N.solverstate are original Caffe's; P_iter_N.state.json is ours and
is written last, so that a snapshot with it is whole.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prototxt_gen.errors import SnapshotError
from runtime.log import caffe_log
from runtime.net_io import copy_trained_layers, save
from runtime.solvers.resume_state import SUFFIX, ResumeState, sum_files
from runtime.solverstate import read_solverstate, write_solverstate

if TYPE_CHECKING:
    from runtime.solvers.solver import Solver

log = logging.getLogger("verydeep.solver")

_H5 = ".h5"
_NAME = re.compile(r"(?P<stem>.*_iter_(?P<iteration>\d+))\.solverstate(\.h5)?$")


@dataclass(frozen=True)
class SnapshotFiles:
    """The paths of one snapshot."""

    model: Path
    solverstate: Path
    state: Path

    @classmethod
    def of(cls, prefix: str, iteration: int, hdf5: bool) -> SnapshotFiles:
        """The paths of the snapshot after `iteration` updates."""
        stem, ending = f"{prefix}_iter_{iteration}", _H5 if hdf5 else ""
        return cls(
            Path(f"{stem}.caffemodel{ending}"),
            Path(f"{stem}.solverstate{ending}"),
            Path(f"{stem}{SUFFIX}"),
        )

    @property
    def all(self) -> tuple[Path, Path, Path]:
        return self.model, self.solverstate, self.state


def probe_prefix(param: Any) -> None:
    """Make sure, before hours of work, that snapshots will find a place.

    Raises:
        SnapshotError: no prefix, or a folder that cannot be made or written to.
    """
    prefix = param.snapshot_prefix
    if param.snapshot and not prefix:
        raise SnapshotError(
            "solver: In solver params, snapshot is specified but snapshot_prefix is not; expected "
            "where snapshots go; set snapshot_prefix"
        )
    if not prefix or not (param.snapshot or param.snapshot_after_train):
        return
    folder = Path(f"{prefix}_iter_0").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe", suffix=".tempfile"):
            pass
    except OSError as cause:
        raise SnapshotError(
            f"Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and "
            f"is writeable.; {folder}: {cause.strerror}; expected a folder for snapshots; choose "
            "another snapshot_prefix"
        ) from cause


def write_snapshot(solver: Solver, state: ResumeState) -> SnapshotFiles:
    """Write weights, solver state and our state, in this order, each of them atomically.

    Raises:
        SnapshotError: the disk is full or read-only; earlier snapshots are untouched.
    """
    param = solver.param
    hdf5 = param.snapshot_format == param.HDF5
    files = SnapshotFiles.of(param.snapshot_prefix, solver.iter, hdf5)
    kind = "HDF5" if hdf5 else "binary proto"
    at = (
        ("solver.cpp:473", "sgd_solver.cpp:295")
        if hdf5
        else ("solver.cpp:464", "sgd_solver.cpp:284")
    )
    caffe_log(at[0], "Snapshotting to %s file %s", kind, files.model)
    save(solver.net, files.model, write_diff=param.snapshot_diff)
    caffe_log(at[1], "Snapshotting solver state to %s file %s", kind, files.solverstate)
    history = [blob.data.host() for blob in solver.engine.history]
    write_solverstate(
        files.solverstate, solver.iter, str(files.model), solver.current_step, history
    )
    state.files = sum_files([files.model, files.solverstate])
    state.write(files.state)
    return files


def restore_snapshot(solver: Solver, path: Path, strict: bool) -> ResumeState | None:
    """Load weights and history; returns our state, or None where Caffe's files stand alone.

    With `strict`, files that do not have the checksums noted for them are refused; without, they
    are taken for files that somebody put there.

    Raises:
        SnapshotError: missing, torn, corrupt, or of another net or solver type.
    """
    noted = _noted_state(path, strict)
    snapshot = read_solverstate(path)
    if snapshot.learned_net:
        copy_trained_layers(solver.net, _learned_net(path, snapshot.learned_net))
    caffe_log("sgd_solver.cpp:318", "SGDSolver: restoring history")
    solver.engine.restore_history(snapshot.history, str(path), SnapshotError)
    solver.iter = snapshot.iter
    solver.current_step = snapshot.current_step
    return noted


def newest_snapshot(prefix: str) -> Path | None:
    """The solverstate of the newest whole snapshot; says which ones it had to pass over.

    Snapshots of original Caffe have no state of ours; they count where none here has one.
    """
    found = sorted(_snapshots(prefix), reverse=True)
    ours = any(state.exists() for _, _, state in found)
    for _, solverstate, state in found:
        fault = f"{state} is missing: it was not finished" if ours else ""
        if state.exists():
            try:
                fault = ResumeState.read(state).fault(state.parent)
            except SnapshotError as error:
                fault = str(error)
        if not fault:
            return solverstate
        log.warning("Snapshot %s is passed over: %s", solverstate, fault)
    return None


def files_of(solverstate: Path) -> tuple[Path, ...]:
    """Weights, solver state and our state of a snapshot named by its solverstate."""
    match = _NAME.match(solverstate.name)
    if match is None:
        return ()
    prefix = str(solverstate.with_name(match["stem"].rpartition("_iter_")[0]))
    hdf5 = solverstate.name.endswith(_H5)
    return SnapshotFiles.of(prefix, int(match["iteration"]), hdf5).all


def seed_of(path: Path) -> int | None:
    """The seed of the run that took a snapshot, where it is known.

    Raises:
        SnapshotError: our state is there and damaged.
    """
    state = _state_path(path)
    return ResumeState.read(state).seed if state is not None and state.exists() else None


def shards_of(path: Path) -> int | None:
    """The shards that a run which took a snapshot cut its batches into, where that is known.

    Raises:
        SnapshotError: our state is there and damaged.
    """
    state = _state_path(path)
    return ResumeState.read(state).shards if state is not None and state.exists() else None


def prune_snapshots(prefix: str, keep: int) -> None:
    """Remove whole snapshots but the newest `keep`."""
    whole = sorted(entry for entry in _snapshots(prefix) if entry[2].exists())
    for iteration, _, state in whole[:-keep]:
        # The state goes first: what is left over is then no whole snapshot any more.
        names = [state]
        for hdf5 in (False, True):
            names += SnapshotFiles.of(prefix, iteration, hdf5).all[:2]
        try:
            for name in names:
                name.unlink(missing_ok=True)
        except OSError as cause:
            log.warning("%s: an old snapshot cannot be removed: %s", state, cause.strerror)


def _snapshots(prefix: str) -> Iterator[tuple[int, Path, Path]]:
    stem = Path(f"{prefix}_iter_")
    for path in stem.parent.glob(f"{_glob_escape(stem.name)}*.solverstate*"):
        match = _NAME.match(path.name)
        if match and match["stem"].startswith(stem.name):
            yield int(match["iteration"]), path, path.with_name(match["stem"] + SUFFIX)


def _glob_escape(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _state_path(path: Path) -> Path | None:
    match = _NAME.match(path.name)
    return path.with_name(match["stem"] + SUFFIX) if match else None


def _noted_state(path: Path, strict: bool) -> ResumeState | None:
    state_path = _state_path(path)
    if state_path is None or not state_path.exists():
        return None
    state = ResumeState.read(state_path)
    fault = state.fault(path.parent)
    if fault and strict:
        raise SnapshotError(
            f"{path}: the snapshot is torn or corrupt: {fault}; expected the files that "
            f"{state_path.name} was written with; use the one before it (--snapshot auto), or "
            f"remove {state_path.name} if you put these files there yourself"
        )
    if fault:
        log.warning("%s does not belong to this snapshot and is left aside: %s", state_path, fault)
        return None
    return state


def _learned_net(path: Path, name: str) -> Path:
    """Weights named as Caffe does, from the working folder; or beside the solverstate."""
    given = Path(name)
    if given.exists():
        return given
    beside = path.parent / given.name
    if beside.exists():
        return beside
    raise SnapshotError(
        f"{path}: its weights are missing; expected {given} or {beside}; "
        "copy the .caffemodel beside the solverstate"
    )
