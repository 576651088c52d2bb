"""The main job in steps; steps that are already done are not repeated."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import generate
from prototxt_gen.errors import StoppedError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.spec import NetSpecification
from prototxt_gen.spec_toml import to_toml
from runtime.backend.base import Backend
from runtime.bundle.preprocessing import Preprocessing
from runtime.evaluate.central_crop import Evaluation
from runtime.job.plan import base_spec, fit_to_data, stored_side, within_memory
from runtime.job.prepare import DEMO, DEMO_IMAGES, Prepared, prepare
from runtime.job.results import draw_results, evaluate_run, export_hdf5, write_bundle
from runtime.job.training import AUTO, StartReplicas, TrainJob, TrainResult, train
from runtime.logs.learning_curve import plot_learning_curve
from runtime.solvers.run_lock import lock_run

log = logging.getLogger("verydeep.job")

KEEP = 3
"""The number of snapshots to keep: a power failure may damage the newest, not the previous one."""


@dataclass(frozen=True)
class JobOptions:
    """The net to train, its data and the output folder."""

    net: str = "A"
    data: str = DEMO
    out: Path = Path("build/demo")
    jobs: int | None = None
    """The threads that prepare the data; None for the number of cores."""
    max_iter: int | None = None
    demo_images: tuple[int, int] = DEMO_IMAGES
    """The numbers of training and held-out images of the embedded data set."""
    replicas: int = 1
    fresh: bool = False
    """Train from the beginning, even if there is a complete or incomplete run."""


def run_job(
    options: JobOptions,
    backend: Backend,
    open_replica: Callable[[int], Backend] | None = None,
    start: StartReplicas | None = None,
) -> Path:
    """Prepare, train, evaluate, export and draw; returns the path of result.json.

    `backend` trains, alone or as the first of `options.replicas`; `open_replica` opens the others,
    or `start` creates them in another way (see `train`).

    Raises:
        VerydeepError: a step failed; the next run continues from the files written so far.
        SnapshotError: another job writes to the folder.
    """
    with lock_run(options.out / "job", advice="another folder"):
        return _run_job(options, backend, open_replica, start)


def _run_job(
    options: JobOptions,
    backend: Backend,
    open_replica: Callable[[int], Backend] | None,
    start: StartReplicas | None,
) -> Path:
    started = time.monotonic()
    demo = options.data == DEMO
    spec = base_spec(options.net, demo)
    side = stored_side(demo, spec.data.train.options.short_side)
    data = prepare(options.data, options.out / "data", side, options.jobs, options.demo_images)
    on_host = backend.shares_host_memory
    spec = fit_to_data(spec, data, not on_host, options.max_iter)
    if on_host:
        spec = within_memory(spec, backend, host_memory() // 2)
    folder = options.out / "net"
    generate.write_all(spec, folder)
    log.info("Nets of %s written to %s", spec.name, folder)
    train_log = options.out / "train.jsonl"
    job = TrainJob(
        str(folder / generate.SOLVER),
        None if options.fresh else AUTO,
        log_json=str(train_log),
        keep=KEEP,
        replicas=options.replicas,
    )
    trained = train_to_end(job, backend, open_replica, start)
    evaluation = evaluate_run(folder, trained.model, data.val_images, backend)
    files = _export(options.out, folder, trained, backend)
    files["log"] = train_log
    files["learning_curve"] = plot_learning_curve(
        train_log, options.out / "learning_curve.png", f"{spec.name}: learning curve"
    )
    files |= draw_results(spec.name, evaluation, data, options.out)
    files["bundle"] = _bundle(options, spec, trained, data, evaluation)
    result = {
        "net": spec.name,
        "iterations": trained.iterations,
        "top1_error": evaluation.error(1),
        "top5_error": evaluation.error(5),
        "held_out_images": len(evaluation.labels),
        "seconds": round(time.monotonic() - started, 1),
        **{key: str(path) for key, path in files.items()},
    }
    path = options.out / "result.json"
    atomic_write_text(path, json.dumps(result, indent=2) + "\n")
    return path


def version() -> str:
    """The version of this program; `unknown` for a folder of sources that is not installed."""
    try:
        return importlib.metadata.version("verydeep")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def host_memory() -> int:
    """The memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def train_to_end(
    job: TrainJob,
    backend: Backend,
    open_replica: Callable[[int], Backend] | None,
    start: StartReplicas | None,
) -> TrainResult:
    """Train, from the newest complete snapshot unless the job starts again."""
    opener = None if open_replica is None else (lambda param, rank: open_replica(rank))
    done = train(job, lambda param: backend, open_replica=opener, start=start)
    if done.stopped or done.terminated:
        raise StoppedError(
            f"stopped at iteration {done.iterations} by a signal; "
            f"the snapshot is {done.solverstate}; run the same command to resume from it",
            done.signal_status or StoppedError.status,
        )
    return done


def _export(out: Path, folder: Path, trained: TrainResult, backend: Backend) -> dict[str, Path]:
    """Export the trained net for original Caffe and others, with weights in both Caffe formats."""
    return {
        "caffemodel": trained.model,
        "caffemodel_h5": export_hdf5(out, folder, trained.model, backend),
        "deploy": folder / generate.DEPLOY,
        "dense": folder / generate.DENSE,
        "solverstate": trained.solverstate,
        "synset_words": out / "data" / "synset_words.txt",
    }


def _bundle(
    options: JobOptions,
    spec: NetSpecification,
    trained: TrainResult,
    data: Prepared,
    evaluation: Evaluation,
) -> Path:
    """Write the bundle of the trained net."""
    side = spec.data.test.options.short_side
    preprocessing = Preprocessing(
        (spec.crop, spec.crop),
        short_side=side[0] if isinstance(side, tuple) else side,
        mean_value=spec.data.mean_value,
    )
    provenance = {"spec": to_toml(spec), "seed": spec.solver.random_seed, "verydeep": version()}
    folder = options.out / "net"
    return write_bundle(options.out, folder, trained, preprocessing, data, evaluation, provenance)
