"""Carries out a recipe: step after step, skipping what is done, going on with what is begun."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen import generate, text
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import StoppedError, TrainingError
from prototxt_gen.sidecar import read_sidecar, write_sidecar
from prototxt_gen.spec import NetSpecification
from prototxt_gen.spec_toml import to_toml
from runtime.backend.base import Backend
from runtime.evaluate.cache import file_sha256
from runtime.job.plan import fit_to_data, within_memory
from runtime.job.prepare import DEMO_IMAGES, Prepared, prepare
from runtime.job.training import AUTO, TrainJob, train
from runtime.paper.recipe import Step
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting
from runtime.solvers.signals import TERMINATED

log = logging.getLogger("verydeep.paper")

_KEEP = 2
_LOG = "train.jsonl"


@dataclass(frozen=True)
class RecipeOptions:
    """How runs are carried out; none of it changes what they are but `max_iter`."""

    jobs: int | None = None
    max_iter: int | None = None
    """Cut every run to so many iterations, for a try."""
    demo_images: tuple[int, int] = DEMO_IMAGES


def run_recipe(
    folder: RunFolder,
    setting: Setting,
    steps: Sequence[Step],
    backend: Backend,
    options: RecipeOptions | None = None,
) -> list[FinishedRun]:
    """Prepare the data and train every step that is not done yet.

    Raises:
        TrainingError: a run was stopped, or its folder holds a run of other settings.
        VerydeepError: what stands in the way; what is done is found next time.
    """
    options = options or RecipeOptions()
    setting.write(folder.root)
    data = prepare(
        setting.data, folder.data, setting.stored_side, options.jobs, options.demo_images
    )
    found = []
    for number, step in enumerate(steps, start=1):
        log.info("Step %d of %d: %s", number, len(steps), step.describe())
        found.append(_carry_out(folder, setting, step, data, backend, options))
    return found


def _carry_out(
    folder: RunFolder,
    setting: Setting,
    step: Step,
    data: Prepared,
    backend: Backend,
    options: RecipeOptions,
) -> FinishedRun:
    on_host = backend.shares_host_memory
    spec = fit_to_data(setting.spec(step), data, not on_host, options.max_iter)
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
    """What tells a spec from all others."""
    return hashlib.sha256(to_toml(spec).encode()).hexdigest()


def write_nets(target: Path, spec: NetSpecification) -> Path:
    """Write a spec's nets, solver and sidecar; returns the solver."""
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
    """Train one run of a folder, go on with it, or find it finished.

    `made_of` tells it from runs of other settings; `write` writes what it is trained by.

    Raises:
        StoppedError: the run was stopped.
        TrainingError: its folder holds one of other settings.
    """
    folder.begin(name, made_of)
    done = folder.finished(name)
    if done is not None:
        log.info("%s: found finished (%d iterations)", name, done.note["iterations"])
        return done
    if backend.shares_host_memory:
        spec = within_memory(spec, backend, host_memory() // 2)
    solver = write(folder.run(name), spec)
    job = TrainJob(str(solver), AUTO, log_json=str(solver.with_name(_LOG)), keep=_KEEP)
    result = train(job, lambda param: backend)
    if result.stopped:
        raise StoppedError(
            f"{name}: stopped at iteration {result.iterations}, as asked; the snapshot is "
            f"{result.solverstate}; the same command goes on from there",
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
            f"{name}: finished, and SIGTERM came; the same command goes on with what follows",
            TERMINATED,
        )
    return finished


def _start_of(folder: RunFolder, step: Step) -> FinishedRun | None:
    if step.start is None:
        return None
    found = folder.finished(step.start)
    if found is None:
        raise TrainingError(
            f"{step.name}: starts from {step.start}, which is not finished in {folder.root}; "
            "expected that run first; use `verydeep recipe`, which does them in order"
        )
    return found


def _write_files(
    target: Path, spec: NetSpecification, step: Step, start: FinishedRun | None
) -> Path:
    """Write nets, solver and sidecar; the solver names the weights it starts from."""
    solver = write_nets(target, spec)
    if start is None:
        return solver
    param: Any = text.read_solver(solver)
    del param.weights[:]
    param.weights.append(utf8_path(start.weights))
    text.write(solver, param)
    write_sidecar(solver, dataclasses.replace(read_sidecar(solver), weights_layers=step.layers))
    return solver


def host_memory() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
