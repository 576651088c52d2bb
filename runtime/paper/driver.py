"""Trains the runs of a recipe. Finished runs are skipped, interrupted ones are resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.demo import TRAIN_IMAGES
from prototxt_gen import generate, text
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import ProtoError, StoppedError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.sidecar import read_sidecar, sidecar_path, write_sidecar
from prototxt_gen.solver import solver_text
from prototxt_gen.spec import NetSpecification
from prototxt_gen.spec_toml import to_toml
from runtime.backend.base import Backend
from runtime.evaluate.cache import file_sha256
from runtime.job.plan import fit_to_data, within_memory
from runtime.job.prepare import Prepared, prepare
from runtime.job.training import AUTO, TrainJob, train
from runtime.paper.recipe import Step
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting
from runtime.solvers.signals import TERMINATED

log = logging.getLogger("verydeep.paper")

_SNAPSHOTS_KEPT = 2
_LOG = "train.jsonl"
HELD_OUT_IMAGES = 10_000
"""Held-out images of the embedded data set: a difference of 0.6 % between two nets is decided."""


@dataclass(frozen=True)
class RecipeOptions:
    """Options of training that do not change the trained nets, except `max_iter`."""

    jobs: int | None = None
    max_iter: int | None = None
    """Limits the iterations of every run, for a trial."""
    demo_images: tuple[int, int] = (TRAIN_IMAGES, HELD_OUT_IMAGES)


def run_recipe(
    folder: RunFolder,
    setting: Setting,
    steps: Sequence[Step],
    backend: Backend,
    options: RecipeOptions | None = None,
) -> list[FinishedRun]:
    """Prepare the data and train every step that is not finished.

    Raises:
        TrainingError: a run was stopped, or its folder contains a run with other settings.
        VerydeepError: data preparation or training failed; finished steps are kept.
    """
    options = options or RecipeOptions()
    data = prepare_data(folder, setting, options)
    runs = []
    for number, step in enumerate(steps, start=1):
        log.info("Step %d of %d: %s", number, len(steps), step.describe())
        runs.append(_train_step(folder, setting, step, data, backend, options))
    return runs


def prepare_data(folder: RunFolder, setting: Setting, options: RecipeOptions) -> Prepared:
    """Record the setting of a folder and make its databases, unless they are complete.

    Raises:
        DataError: the folder contains runs on other data, or the data cannot be prepared.
    """
    setting.write(folder.root)
    return prepare(
        setting.data,
        folder.data,
        setting.stored_side,
        options.jobs,
        options.demo_images,
        seed=setting.seed,
    )


def _train_step(
    folder: RunFolder,
    setting: Setting,
    step: Step,
    data: Prepared,
    backend: Backend,
    options: RecipeOptions,
) -> FinishedRun:
    spec = fit_to_data(setting.spec(step), data, not backend.shares_host_memory, options.max_iter)
    start = _start_of(folder, step)
    made_of = {
        "spec": spec_sha256(spec),
        "start": None if start is None else start.note["weights_sha256"],
        "layers": list(step.layers),
    }

    def write(target: Path, fitting: NetSpecification) -> Path:
        return _write_files(target, fitting, step, start)

    return train_run(folder, step.name, spec, backend, made_of, step.describe(), write)


def spec_sha256(spec: NetSpecification) -> str:
    """Return the checksum of a spec's text."""
    return hashlib.sha256(to_toml(spec).encode()).hexdigest()


def write_nets(target: Path, spec: NetSpecification) -> Path:
    """Write the nets, the solver and the sidecar of a spec; return the path of the solver."""
    generate.write_all(spec, target)
    return target / generate.SOLVER


def train_run(
    folder: RunFolder,
    name: str,
    spec: NetSpecification,
    backend: Backend,
    made_of: dict[str, Any],
    started_from: str,
    write: Callable[[Path, NetSpecification], Path] = write_nets,
) -> FinishedRun:
    """Train or resume one run of a folder, unless it is finished.

    `made_of` identifies the settings of the run. `write` writes its prototxts and returns the path
    of the solver.

    Raises:
        StoppedError: the run was stopped.
        TrainingError: its folder contains a run with other settings.
    """
    folder.begin(name, made_of)
    finished = folder.finished(name)
    if finished is not None:
        log.info("%s: already finished (%d iterations)", name, finished.note["iterations"])
        return finished
    if backend.shares_host_memory:
        spec = within_memory(spec, backend, host_memory() // 2)
    solver = write(folder.run(name), spec)
    job = TrainJob(str(solver), AUTO, log_json=str(solver.with_name(_LOG)), keep=_SNAPSHOTS_KEPT)
    result = train(job, lambda param: backend)
    if result.stopped:
        raise StoppedError(
            f"{name}: stopped at iteration {result.iterations} by a signal; the snapshot is "
            f"{result.solverstate}; repeat the command to resume",
            result.signal_status or StoppedError.status,
        )
    finished = folder.finish(
        name,
        net=spec.name,
        model=generate.TRAIN_VAL,
        weights=result.model.name,
        weights_sha256=file_sha256(result.model),
        iterations=result.iterations,
        seconds=round(result.seconds, 1),
        started_from=started_from,
        test=result.test,
    )
    if result.terminated:
        raise StoppedError(
            f"{name}: finished; SIGTERM was received; repeat the command for the next run",
            TERMINATED,
        )
    return finished


def _start_of(folder: RunFolder, step: Step) -> FinishedRun | None:
    if step.start is None:
        return None
    advice = "use `verydeep recipe`, which trains the runs in order"
    return folder.require(step.start, f"{step.name}: starts from {step.start}", advice)


def _write_files(
    target: Path, spec: NetSpecification, step: Step, start: FinishedRun | None
) -> Path:
    """Write nets, solver and sidecar, with the initial weights in the solver."""
    solver = write_nets(target, spec)
    if start is None:
        return solver
    param: Any = text.read_solver(solver)
    del param.weights[:]
    param.weights.append(utf8_path(start.weights))
    atomic_write_text(solver, solver_text(param, sidecar_path(solver)), ProtoError)
    write_sidecar(solver, dataclasses.replace(read_sidecar(solver), weights_layers=step.layers))
    return solver


def host_memory() -> int:
    """Return the size of this machine's memory. Units: bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
