"""Snapshots: writing, finding, restoring and removing them.

P_iter_N.caffemodel and P_iter_N.solverstate have original Caffe's formats. P_iter_N.state.json is
this program's resume state, with the checksums of the other two. The three are replaced together.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from prototxt_gen.destination import exists, find_destination
from prototxt_gen.errors import SnapshotError
from prototxt_gen.file_groups import replace_together, settle
from prototxt_gen.files import temporary_folder
from runtime.logs.glog import caffe_log
from runtime.net import Net
from runtime.solvers.engine import Engine
from runtime.solvers.options import SolverOptions
from runtime.solvers.ownership import log_path, recorded, refuse_foreign
from runtime.solvers.resume_state import SUFFIX, ResumeState, sum_files
from runtime.weights import net_weights
from runtime.weights.net_weights import copy_trained_layers, save
from runtime.weights.solverstate import read_solverstate, write_solverstate

log = logging.getLogger("verydeep.solver")

_H5 = ".h5"
_NAME = re.compile(r"(?P<stem>.*_iter_(?P<iteration>[0-9]{1,18}))\.solverstate(\.h5)?", re.DOTALL)
_PART = re.compile(
    r"(?P<stem>.*_iter_)(?P<iteration>[0-9]{1,18})"
    r"(\.caffemodel|\.solverstate|\.caffemodel\.h5|\.solverstate\.h5|\.state\.json)",
    re.DOTALL,
)


class SnapshotSource(Protocol):
    """The part of a solver that snapshots read and restore."""

    iter: int
    current_step: int
    options: SolverOptions

    @property
    def param(self) -> Any:
        """The SolverParameter."""

    @property
    def net(self) -> Net:
        """The train net."""

    @property
    def engine(self) -> Engine:
        """The engine, which has the history."""


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
    """Check before the training that snapshots can be written.

    Raises:
        SnapshotError: no prefix, or a folder that cannot be created or written to.
    """
    prefix = param.snapshot_prefix
    if param.snapshot and not prefix:
        raise SnapshotError(
            "solver: In solver params, snapshot is specified but snapshot_prefix is not; expected "
            "the beginning of the paths of the snapshots; set snapshot_prefix"
        )
    if not prefix or not (param.snapshot or param.snapshot_after_train):
        return
    probe = Path(f"{prefix}_iter_0")
    try:
        find_destination(SnapshotFiles.of(prefix, param.max_iter, hdf5=True).solverstate)
        with temporary_folder(probe):
            pass
    except OSError as cause:
        raise SnapshotError(
            f"Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and "
            f"is writeable.; {probe.parent}: {cause.strerror or cause}; expected a folder for "
            "snapshots; choose another snapshot_prefix"
        ) from cause
    settle_snapshots(prefix)


def settle_snapshots(prefix: str) -> None:
    """Complete or remove the snapshot files that a killed run left in a temporary state."""
    stem = Path(f"{prefix}_iter_")
    for path in settle(stem.parent, rf"{re.escape(stem.name)}\d+(\.[\w.]+)?"):
        log.info("%s: left by a run that was killed; completed or removed", path)


def check_names(net: Net, param: Any) -> None:
    """Check before the training that the format of snapshots supports the names of the layers.

    Raises:
        SnapshotError: a layer has a name that HDF5 does not support.
    """
    if param.snapshot_format == param.HDF5:
        net_weights.check_names(net, net_weights.HDF5, "solver: snapshot_format HDF5")


def write_snapshot(solver: SnapshotSource, state: ResumeState) -> SnapshotFiles:
    """Write the weights, the solver state and the resume state; either all or none exist after it.

    Raises:
        SnapshotError: the disk is full or read-only; earlier snapshots are unchanged.
    """
    param = solver.param
    hdf5 = param.snapshot_format == param.HDF5
    files = SnapshotFiles.of(param.snapshot_prefix, solver.iter, hdf5)
    kind, lines = ("HDF5", (473, 295)) if hdf5 else ("binary proto", (464, 284))
    stem = Path(f"{param.snapshot_prefix}_iter_{solver.iter}")
    if not solver.options.force:
        refuse_foreign(files.all, files.state, _log_of(solver))
    with replace_together(stem, SnapshotError) as folder:
        staged = SnapshotFiles(*(folder / path.name for path in files.all))
        caffe_log(f"solver.cpp:{lines[0]}", "Snapshotting to %s file %s", kind, files.model)
        save(solver.net, staged.model, write_diff=param.snapshot_diff)
        message = "Snapshotting solver state to %s file %s"
        caffe_log(f"sgd_solver.cpp:{lines[1]}", message, kind, files.solverstate)
        history = [blob.data.host() for blob in solver.engine.history]
        write_solverstate(
            staged.solverstate, solver.iter, str(files.model), solver.current_step, history
        )
        state.files = sum_files([staged.model, staged.solverstate])
        state.write(staged.state)
    return files


def restore_snapshot(solver: SnapshotSource, path: Path, strict: bool) -> ResumeState | None:
    """Load weights and history; returns the resume state, or None if only Caffe's files exist.

    With `strict`, files with another checksum than the resume state has are an error. Otherwise
    they are loaded without the resume state, as files from another program.

    Raises:
        SnapshotError: missing, incomplete, corrupt, or of another net or solver type.
    """
    state = _resume_state(path, strict)
    snapshot = read_solverstate(path)
    if snapshot.learned_net:
        copy_trained_layers(solver.net, _learned_net(path, snapshot.learned_net))
    caffe_log("sgd_solver.cpp:318", "SGDSolver: restoring history")
    solver.engine.restore_history(snapshot.history, str(path))
    solver.iter = snapshot.iter
    solver.current_step = snapshot.current_step
    return state


def refuse_foreign_snapshots(solver: SnapshotSource) -> None:
    """Check before the training that no snapshot would replace a file of another program.

    Raises:
        SnapshotError: a snapshot of this run would replace such a file.
    """
    param = solver.param
    if solver.options.force or not param.snapshot_prefix:
        return
    hdf5 = param.snapshot_format == param.HDF5
    for iteration in sorted(_parts(param.snapshot_prefix)):
        scheduled = param.snapshot and iteration % param.snapshot == 0
        last = iteration == param.max_iter and param.snapshot_after_train
        if solver.iter < iteration <= param.max_iter and (scheduled or last):
            files = SnapshotFiles.of(param.snapshot_prefix, iteration, hdf5)
            refuse_foreign(files.all, files.state, _log_of(solver))


def _log_of(solver: SnapshotSource) -> Path:
    return solver.options.log_json or log_path(solver.param.snapshot_prefix)


def newest_snapshot(prefix: str) -> Path | None:
    """The solverstate of the newest complete snapshot; logs a warning for each one skipped.

    Snapshots of original Caffe have no resume state; they are accepted if no snapshot has one.
    """
    settle_snapshots(prefix)
    snapshots = sorted(_snapshots(prefix), reverse=True)
    with_states = any(state.exists() for _, _, state in snapshots)
    for _, solverstate, state in snapshots:
        fault = f"{state} is missing: it was not finished" if with_states else ""
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
    """The weights, solver state and resume state of the snapshot with this solverstate."""
    match = _NAME.fullmatch(solverstate.name)
    if match is None:
        return ()
    prefix = str(solverstate.with_name(match["stem"].rpartition("_iter_")[0]))
    hdf5 = solverstate.name.endswith(_H5)
    return SnapshotFiles.of(prefix, int(match["iteration"]), hdf5).all


def seed_of(path: Path) -> int | None:
    """The seed of the run that took a snapshot; None without a resume state.

    Raises:
        SnapshotError: the resume state is damaged.
    """
    state = _state_path(path)
    return ResumeState.read(state).seed if state is not None and state.exists() else None


def shards_of(path: Path) -> int | None:
    """The number of shards in the run that took a snapshot; None without a resume state.

    Raises:
        SnapshotError: the resume state is damaged.
    """
    state = _state_path(path)
    return ResumeState.read(state).shards if state is not None and state.exists() else None


def prune_snapshots(prefix: str, keep: int, log_json: Path | None = None) -> None:
    """Remove complete snapshots except the newest `keep`, and incomplete ones before them.

    Files of an incomplete snapshot are only removed if the JSON log names them.
    """
    settle_snapshots(prefix)
    complete = {iteration for iteration, _, state in _snapshots(prefix) if state.exists()}
    kept = sorted(complete)[-keep:]
    own = recorded(log_json or log_path(prefix))
    for iteration, paths in _parts(prefix).items():
        if kept and iteration < kept[0]:
            if iteration not in complete:
                paths = [path for path in paths if path.name in own]
            _remove_parts(paths)


def _remove_parts(paths: list[Path]) -> None:
    # The resume state is removed first, so that the rest is an incomplete snapshot.
    for path in sorted(paths, key=lambda path: not path.name.endswith(SUFFIX)):
        try:
            path.unlink(missing_ok=True)
        except OSError as cause:
            log.warning("%s: an old snapshot cannot be removed: %s", path, cause.strerror)
            return


def _parts(prefix: str) -> dict[int, list[Path]]:
    """The files of all snapshots, complete or not, by iteration."""
    stem = Path(f"{prefix}_iter_")
    parts: dict[int, list[Path]] = {}
    try:
        with os.scandir(stem.parent) as entries:
            names = sorted(entry.name for entry in entries)
    except (OSError, ValueError):
        return parts
    for name in names:
        match = _PART.fullmatch(name)
        if match and match["stem"] == stem.name:
            parts.setdefault(int(match["iteration"]), []).append(stem.with_name(name))
    return parts


def _snapshots(prefix: str) -> Iterator[tuple[int, Path, Path]]:
    """The iteration, solver state and resume state of each solver state."""
    for iteration, paths in _parts(prefix).items():
        for path in paths:
            match = _NAME.fullmatch(path.name)
            if match:
                yield iteration, path, path.with_name(match["stem"] + SUFFIX)


def _state_path(path: Path) -> Path | None:
    match = _NAME.fullmatch(path.name)
    return path.with_name(match["stem"] + SUFFIX) if match else None


def _resume_state(path: Path, strict: bool) -> ResumeState | None:
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
        log.warning("%s does not belong to this snapshot and is ignored: %s", state_path, fault)
        return None
    return state


def _learned_net(path: Path, name: str) -> Path:
    """The weights at a path relative to the working folder, or in the folder of the solverstate."""
    given = Path(name)
    neighbour = path.parent / given.name
    for candidate in (given, neighbour):
        if exists(candidate):
            return candidate
    raise SnapshotError(
        f"{path}: its weights are missing; expected {given} or {neighbour}; "
        "copy the .caffemodel to the folder of the solverstate"
    )
