"""A training run from its files: solver, sidecar, snapshot or weights; the command `train`."""

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
from prototxt_gen.errors import DeviceError, ProtoError, SnapshotError, UsageError
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
from runtime.solvers.build import weight_files
from runtime.solvers.display import JsonLog, finite_json
from runtime.solvers.engine import BuildEngine, Engine, EngineSetup
from runtime.solvers.guard import LossGuard
from runtime.solvers.hooks import RunView, Score, SolverHook, TestResult
from runtime.solvers.local_engine import LocalEngine
from runtime.solvers.options import SolverOptions
from runtime.solvers.ownership import continues, log_path, refuse_foreign_log, refuse_inputs
from runtime.solvers.run_lock import lock_run
from runtime.solvers.signals import INTERRUPTED, TERMINATED, Action, SignalHandler
from runtime.solvers.snapshot import files_of, newest_snapshot, seed_of, shards_of
from runtime.solvers.solver import Solver

log = logging.getLogger("verydeep.solver")

AUTO = "auto"

StartReplicas = Callable[[EngineSetup, ShardPlan], Engine]
"""Builds the replicas of a plan, and returns the engine that uses them."""


@dataclass(frozen=True)
class TrainJob:
    """The settings of a training run."""

    solver: str | os.PathLike[str]
    """The solver prototxt; its sidecar is in the same folder."""
    snapshot: str | os.PathLike[str] | None = None
    """The solverstate to resume from, or `auto` for the newest complete one, if any."""
    weights: str | None = None
    """Files of initial weights, separated by commas, which replace the solver's weights."""
    level: int = 0
    stages: Sequence[str] = ()
    log_json: str | os.PathLike[str] | None = None
    """The path of the log of JSON lines; None for <snapshot_prefix>.log.jsonl."""
    log_file: str | os.PathLike[str] | None = None
    """The file that setup_logging opened for this run; it is locked with the snapshots."""
    keep: int | None = None
    """The number of complete snapshots to keep; None for all."""
    stop_on_snapshot_error: bool = False
    confine_lists: bool = False
    """Do not accept files outside of their root folder in lists of images and of HDF5 files."""
    force: bool = False
    """Whether files that this program has not written may be replaced."""
    replicas: int = 1
    """The devices that share each batch."""
    batch_semantics: str = GLOBAL
    """Whether the batch of the prototxt is that of all devices (global) or of each (per-gpu)."""
    transport: str = links.AUTO
    """How devices exchange gradients; see runtime/parallel/links.py."""
    patience: float = PATIENCE
    """The timeout for replicas in seconds."""
    test_only: bool = False
    """Run the tests with the weights or the snapshot, without training or writing anything."""
    sigint: Action = Action.STOP
    sighup: Action = Action.SNAPSHOT


@dataclass
class TrainResult:
    """The results of a run. Units: seconds, since this start."""

    iterations: int
    stopped: bool
    seconds: float
    files: tuple[Path, ...] = ()
    """The last snapshot: weights, solver state, and the state that Caffe's files lack."""
    log_json: Path | None = None
    log_lost: bool = False
    """Whether lines of `log_json` could not be written."""
    terminated: bool = False
    """Whether SIGTERM was received."""
    interrupted: bool = False
    """Whether SIGINT stopped the run before its end."""
    test: dict[str, float] = field(default_factory=dict)
    """The outputs of the last test of the first test net."""
    best: dict[str, Any] | None = None
    not_finite: tuple[str, ...] = ()
    """Blobs of test nets with NaN or infinity in the last test, which make its scores invalid."""

    @property
    def model(self) -> Path:
        """The .caffemodel of the last snapshot or of the one resumed from; see `solverstate`."""
        return self._file(0)

    @property
    def solverstate(self) -> Path:
        """The .solverstate of the last snapshot or of the one resumed from.

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
        """The result as one JSON object."""
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
    """Records the last test, the last snapshot and the reason of the end."""

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
    """Train according to solver and job; Ctrl-C and SIGTERM take a snapshot and stop.

    `open_backend` is called with the SolverParameter, which may specify the device; `open_replica`
    is also called with the number of a replica, in the thread of that replica. `start` builds the
    replicas in another way, such as over MPI.

    Raises:
        VerydeepError: see Solver; snapshots already taken are kept.
        SnapshotError: another run writes the same snapshots or logs.
    """
    _check_logs(job)
    with lock_run(*_written_paths(job)):
        return _train(job, open_backend, hooks, open_replica, start)


def _check_logs(job: TrainJob) -> None:
    """Refuse logs that would replace a file that the run reads, or one another."""
    param = text.read_solver(job.solver)
    logs = {"--log_file": job.log_file, "--log_json": job.log_json}
    if job.log_json is None and param.snapshot_prefix:
        logs = {"the JSON log": log_path(param.snapshot_prefix), "--log_file": job.log_file}
    inputs = [job.solver, locate_sidecar(job.solver), param.net, param.train_net, *param.test_net]
    inputs += [*weight_files(param), *(job.weights or "").split(","), job.snapshot]
    refuse_inputs(
        {flag: path for flag, path in logs.items() if path is not None},
        [path for path in inputs if path],
    )


def _written_paths(job: TrainJob) -> list[str | os.PathLike[str]]:
    """The prefix of the snapshots, and the logs with other names."""
    prefix = str(text.read_solver(job.solver).snapshot_prefix)
    logs = [path for path in (job.log_json, job.log_file) if path is not None]
    # A device or a pipe may have several writers.
    files = [path for path in logs if not exists(path) or is_file(Path(path))]
    return [*([prefix] if prefix else []), *files]


def _run(solver: Solver, test_only: bool, outcome: _Outcome) -> None:
    caffe_log("caffe.cpp:239", "Starting Optimization")
    if test_only:
        solver.test_all()
        outcome.reason = "done" if outcome.scores else "stopped"
    else:
        solver.solve()
    caffe_log("caffe.cpp:250", "Optimization Done.")


def _start_logs(job: TrainJob, param: Any, resume: Path | None) -> list[JsonLog]:
    """Begin or continue the log files; returns the JSON log, if the job has one."""
    if job.test_only:
        _check_test_only(job, param, resume)
    log_json = None if job.test_only else _json_path(job, param)
    logs = [Path(path) for path in (log_json, job.log_file) if path is not None]
    continued = [continues(path, resume, param.snapshot_prefix) for path in logs]
    start_log_files(fresh=not any(continued))
    return [] if log_json is None else [JsonLog(log_json, fresh=not continued[0])]


def _train(
    job: TrainJob,
    open_backend: Callable[[Any], Backend],
    hooks: Sequence[SolverHook],
    open_replica: Callable[[Any, int], Backend] | None,
    start: StartReplicas | None,
) -> TrainResult:
    param, resume = prepare(job)
    json_logs = _start_logs(job, param, resume)
    outcome, started = _Outcome(), time.perf_counter()
    if resume is not None:
        outcome.files = files_of(resume)
    watchers = [LossGuard(), outcome, progress_hook(), *hooks, *json_logs]
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
        _log_batch(solver, plan)
        expect_room(solver)
        if resume is not None:
            caffe_log("caffe.cpp:230", "Resuming from %s", resume)
            solver.restore(resume, strict=True)
        _run(solver, job.test_only, outcome)
    return TrainResult(
        iterations=solver.iter,
        stopped=outcome.reason == "stopped",
        seconds=time.perf_counter() - started,
        files=outcome.files,
        log_json=json_logs[0].path if json_logs else None,
        log_lost=any(json_log.lost for json_log in json_logs),
        terminated=signals.terminated,
        interrupted=signals.interrupted and outcome.reason == "stopped",
        test={score.name: score.value for score in outcome.scores},
        best=solver.best.to_json(),
        not_finite=tuple(dict.fromkeys(n for names in outcome.not_finite.values() for n in names)),
    )


def _check_test_only(job: TrainJob, param: Any, resume: Path | None) -> None:
    """Check that there is something to test.

    Raises:
        UsageError: there are no weights, or no test net.
    """
    if resume is None and not param.weights:
        raise UsageError(
            f"--eval-only: no weights; expected those of --weights or --snapshot, got "
            f"--snapshot {job.snapshot or 'none'}; give one of them"
        )
    if not param.test_iter:
        raise UsageError(
            f"--eval-only: {job.solver} has no test_iter; expected a test net; add test_iter and "
            "test_interval to the solver"
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
        f"replica {rank}: it has no device; expected one for each replica; train on one device"
    )


def prepare(job: TrainJob) -> tuple[Any, Path | None]:
    """The SolverParameter with the job's changes, and the solverstate to resume from.

    Raises:
        ProtoError: the solver cannot be read, or snapshot and weights are both given.
        SnapshotError: the snapshot is missing.
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
            log.info(
                "No complete snapshot of %s: starting from the beginning", param.snapshot_prefix
            )
            return param, None
    elif not exists(job.snapshot):
        raise SnapshotError(
            f"{job.snapshot}: the snapshot is missing; expected a .solverstate; check the "
            "path, or use --snapshot auto for the newest one"
        )
    # Weights from the solver's fields would be overwritten by the snapshot.
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


def _log_batch(solver: Solver, plan: ShardPlan) -> None:
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
