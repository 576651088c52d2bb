"""One training run from its files: solver, sidecar, snapshot or weights. The job behind `train`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen import text
from prototxt_gen.destination import exists, is_file, utf8_path
from prototxt_gen.errors import DeviceError, ProtoError, SnapshotError
from prototxt_gen.sidecar import describe_sidecar, locate_sidecar, read_sidecar
from runtime.backend.base import Backend
from runtime.job.device_memory import expect_room
from runtime.job.progress import progress_hook
from runtime.logs.glog import caffe_log, start_log_files
from runtime.net.shape_net import batch_of
from runtime.parallel import links
from runtime.parallel.collective import PATIENCE
from runtime.parallel.shard_plan import GLOBAL, ShardPlan, plan_shards
from runtime.parallel.start import OpenReplica, options_for, start_threads
from runtime.solvers.display import JsonLog, finite_json
from runtime.solvers.engine import BuildEngine, Engine, EngineSetup
from runtime.solvers.guard import LossGuard
from runtime.solvers.hooks import RunView, Score, SolverHook, TestResult
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.options import SolverOptions
from runtime.solvers.ownership import continues, log_path, refuse_foreign_log
from runtime.solvers.run_lock import lock_run
from runtime.solvers.signals import INTERRUPTED, TERMINATED, Action, SignalHandler
from runtime.solvers.snapshot import files_of, newest_snapshot, seed_of, shards_of
from runtime.solvers.solver import Solver

log = logging.getLogger("verydeep.solver")

AUTO = "auto"

StartReplicas = Callable[[EngineSetup, ShardPlan], Engine]
"""Builds the replicas of a plan; returns the engine that uses them."""


@dataclass(frozen=True)
class TrainJob:
    """What to train, from where, and how to behave meanwhile."""

    solver: str | os.PathLike[str]
    """The solver prototxt; its sidecar stands beside it."""
    snapshot: str | os.PathLike[str] | None = None
    """A solverstate to go on from, or `auto` for the newest whole one, if any."""
    weights: str | None = None
    """Files of weights to start from, with commas between them, instead of the solver's own."""
    level: int = 0
    stages: Sequence[str] = ()
    log_json: str | os.PathLike[str] | None = None
    """Where JSON lines go; None for <snapshot_prefix>.log.jsonl."""
    log_file: str | os.PathLike[str] | None = None
    """The file that setup_logging holds for this run; it is locked with the snapshots."""
    keep: int | None = None
    """Whole snapshots to keep; None for all."""
    stop_on_snapshot_error: bool = False
    confine_lists: bool = False
    """Refuse files outside of their root folder in lists of images and of HDF5 files."""
    force: bool = False
    """Whether files that this program did not write may be replaced."""
    replicas: int = 1
    """Devices that share each batch."""
    batch_semantics: str = GLOBAL
    """Whether the prototxt's batch is the whole batch (global) or each device's (per-gpu)."""
    transport: str = links.AUTO
    """How gradients travel between devices; see runtime/parallel/links.py."""
    patience: float = PATIENCE
    """Seconds to wait for a replica that is late."""
    sigint: Action = Action.STOP
    sighup: Action = Action.SNAPSHOT


@dataclass
class TrainResult:
    """What a run came to; seconds are those of this start."""

    iterations: int
    stopped: bool
    seconds: float
    files: tuple[Path, ...] = ()
    """The last snapshot: weights, solver state, our state."""
    log_json: Path | None = None
    log_lost: bool = False
    """Whether lines of `log_json` could not be written."""
    terminated: bool = False
    """Whether SIGTERM was received."""
    interrupted: bool = False
    """Whether SIGINT stopped the run before its end."""
    test: dict[str, float] = field(default_factory=dict)
    """Outputs of the last test of the first test net."""
    best: dict[str, Any] | None = None
    not_finite: tuple[str, ...] = ()
    """Blobs of test nets that had NaN or infinity in the last test: its scores mean nothing."""

    @property
    def model(self) -> Path:
        """The .caffemodel of the last snapshot, or of the one resumed from. See `solverstate`."""
        return self._file(0)

    @property
    def solverstate(self) -> Path:
        """The .solverstate of the last snapshot.

        Raises:
            SnapshotError: the run took none.
        """
        return self._file(1)

    @property
    def signal_status(self) -> int:
        """The exit status for the signal that was received: 143, 130, or 0 for none."""
        if self.terminated:
            return TERMINATED
        return INTERRUPTED if self.interrupted else 0

    def to_json(self) -> str:
        """One JSON object."""
        values = {key: getattr(self, key) for key in ("iterations", "stopped", "seconds")}
        values |= {"files": [str(path) for path in self.files], "test": self.test}
        values |= {"best": self.best, "not_finite": list(self.not_finite)}
        values |= {"log_json": str(self.log_json) if self.log_json else None}
        return json.dumps(finite_json(values))

    def _file(self, index: int) -> Path:
        if not self.files:
            raise SnapshotError(
                "the run took no snapshot; expected one at its end; set snapshot_after_train: true"
            )
        return self.files[index]


class _Outcome(SolverHook):
    """Remembers what happened last."""

    def __init__(self) -> None:
        self.files: tuple[Path, ...] = ()
        self.scores: tuple[Score, ...] = ()
        self.not_finite: dict[int, tuple[str, ...]] = {}
        self.reason = ""

    def on_test(self, solver: RunView, result: TestResult) -> None:
        self.not_finite[result.net_id] = result.not_finite
        if result.net_id == 0:
            self.scores = result.scores

    def on_snapshot(self, solver: RunView, files: tuple[Path, ...]) -> None:
        self.files = files

    def on_end(self, solver: RunView, reason: str) -> None:
        self.reason = reason


def train(
    job: TrainJob,
    open_backend: Callable[[Any], Backend],
    hooks: Sequence[SolverHook] = (),
    open_replica: Callable[[Any, int], Backend] | None = None,
    start: StartReplicas | None = None,
) -> TrainResult:
    """Train as the solver and the job specify; Ctrl-C and SIGTERM snapshot and stop.

    `open_backend` is given the SolverParameter, which may name the device; `open_replica` is given
    the number of a further replica as well, in the thread in which it will run. `start` builds the
    replicas in another way, such as over MPI.

    Raises:
        VerydeepError: see Solver; snapshots already taken stay.
        SnapshotError: another run writes the same snapshots or logs.
    """
    with lock_run(*_written_paths(job)):
        return _train(job, open_backend, hooks, open_replica, start)


def _written_paths(job: TrainJob) -> list[str | os.PathLike[str]]:
    """The prefix of the snapshots, and the logs that have names of their own."""
    prefix = str(text.read_solver(job.solver).snapshot_prefix)
    logs = [path for path in (job.log_json, job.log_file) if path is not None]
    # A device or a pipe may have several writers.
    files = [path for path in logs if not exists(path) or is_file(Path(path))]
    return [*([prefix] if prefix else []), *files]


def _train(
    job: TrainJob,
    open_backend: Callable[[Any], Backend],
    hooks: Sequence[SolverHook],
    open_replica: Callable[[Any, int], Backend] | None,
    start: StartReplicas | None,
) -> TrainResult:
    param, resume = prepare(job)
    start_log_files(fresh=resume is None)
    log_json = _json_path(job, param)
    outcome, started = _Outcome(), time.perf_counter()
    if resume is not None:
        outcome.files = files_of(resume)
    watchers = [LossGuard(), outcome, progress_hook(), *hooks]
    json_log = (
        None
        if log_json is None
        else JsonLog(log_json, not continues(log_json, resume, param.snapshot_prefix))
    )
    watchers += [] if json_log is None else [json_log]
    options, plan = _plan(job, param, resume)
    with SignalHandler(job.sigint, job.sighup) as signals, contextlib.ExitStack() as stack:
        build_engine: BuildEngine = LocalEngine
        if plan.shards > 1:
            opener = functools.partial(open_replica or _no_replica, param)
            build_engine = _engine_builder(job, plan, opener, start)
        solver = Solver(
            param, open_backend(param), options_for(options, plan), watchers, build_engine
        )
        stack.callback(solver.close)
        solver.requested_action = signals.poll
        _say_batch(solver, plan)
        expect_room(solver)
        if resume is not None:
            caffe_log("caffe.cpp:230", "Resuming from %s", resume)
            solver.restore(resume, strict=True)
        caffe_log("caffe.cpp:239", "Starting Optimization")
        solver.solve()
        caffe_log("caffe.cpp:250", "Optimization Done.")
    return TrainResult(
        iterations=solver.iter,
        stopped=outcome.reason == "stopped",
        seconds=time.perf_counter() - started,
        files=outcome.files,
        log_json=log_json,
        log_lost=json_log is not None and json_log.lost,
        terminated=signals.terminated,
        interrupted=signals.interrupted and outcome.reason == "stopped",
        test={score.name: score.value for score in outcome.scores},
        best=solver.best.to_json(),
        not_finite=tuple(dict.fromkeys(n for names in outcome.not_finite.values() for n in names)),
    )


def _plan(job: TrainJob, param: Any, resume: Path | None) -> tuple[SolverOptions, ShardPlan]:
    options = _solver_options(job, param, resume)
    resumed = None if resume is None else shards_of(resume)
    plan = plan_shards(param, options, job.replicas, job.batch_semantics, resumed)
    return options, dataclasses.replace(plan, transport=job.transport)


def _engine_builder(
    job: TrainJob, plan: ShardPlan, open_replica: OpenReplica, start: StartReplicas | None
) -> BuildEngine:
    if start is not None:
        return lambda setup: start(setup, plan)
    return lambda setup: start_threads(setup, plan, open_replica, job.patience)


def _no_replica(param: Any, rank: int) -> Backend:
    raise DeviceError(
        f"replica {rank}: no device was named for it; expected one for each replica; train on one"
    )


def prepare(job: TrainJob) -> tuple[Any, Path | None]:
    """The SolverParameter with the job's changes, and the solverstate to go on from.

    Raises:
        ProtoError: the solver does not read, or snapshot and weights are both given.
        SnapshotError: the snapshot is not there.
    """
    if job.snapshot and job.weights:
        raise ProtoError(
            "Give a snapshot to resume training or weights to finetune but not both.; expected "
            f"one, got --snapshot {job.snapshot} and --weights {job.weights}; remove one"
        )
    param = text.read_solver(job.solver)
    param.train_state.level = job.level
    param.train_state.stage.extend(job.stages)
    if job.weights:
        del param.weights[:]
        param.weights.append(utf8_path(job.weights))
    if not job.snapshot:
        return param, None
    resume: Path | None = Path(os.fspath(job.snapshot))
    if job.snapshot == AUTO:
        resume = newest_snapshot(param.snapshot_prefix)
        if resume is None:
            log.info("No whole snapshot of %s: starting anew", param.snapshot_prefix)
            return param, None
    elif not exists(job.snapshot):
        raise SnapshotError(
            f"{job.snapshot}: the snapshot is missing; expected a .solverstate; check the "
            "path, or say --snapshot auto for the newest one"
        )
    # The weights that the solver names would be read only to be overwritten.
    del param.weights[:]
    return param, resume


def _solver_options(job: TrainJob, param: Any, resume: Path | None) -> SolverOptions:
    sidecar, path = read_sidecar(job.solver, param), locate_sidecar(job.solver)
    if path is not None:
        log.info("%s", describe_sidecar(path, sidecar))
    return SolverOptions(
        sidecar=sidecar,
        seed=None if resume is None else seed_of(resume),
        overwritten_by=None if resume is None else next(iter(files_of(resume)), None),
        keep=job.keep,
        force=job.force,
        log_json=None if job.log_json is None else Path(job.log_json),
        stop_on_snapshot_error=job.stop_on_snapshot_error,
        confine_lists=job.confine_lists,
        share_activations=True,
    )


def _json_path(job: TrainJob, param: Any) -> Path | None:
    if job.log_json is not None:
        return Path(job.log_json)
    if not param.snapshot_prefix:
        return None
    path = log_path(param.snapshot_prefix)
    if not job.force:
        refuse_foreign_log(path)
    return path


def _say_batch(solver: Solver, plan: ShardPlan) -> None:
    shards, iter_size = solver.engine.shards, solver.param.iter_size
    batch, name = batch_of(solver.net) * shards, solver.net.backend.name
    log.info(
        "Effective batch %d: %d images in %d shard(s), iter_size %d, on %s",
        batch * iter_size,
        batch,
        shards,
        iter_size,
        name if plan.replicas == 1 else f"{plan.replicas} replicas ({name})",
    )
