"""The main job in steps; steps that are already done are not repeated."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import generate, proto, text
from prototxt_gen.errors import StoppedError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.evaluate.central_crop import Evaluation, evaluate_central_crop
from runtime.evaluate.confusion import confusion_csv, confusion_matrix, confusion_picture
from runtime.job.pictures import draw_predictions
from runtime.job.plan import base_spec, fit_to_data, stored_side, within_memory
from runtime.job.prepare import DEMO, DEMO_IMAGES, Prepared, prepare
from runtime.job.training import AUTO, StartReplicas, TrainJob, TrainResult, train
from runtime.logs.learning_curve import plot_learning_curve
from runtime.net import Net
from runtime.net.fillers import without_fillers
from runtime.weights import net_weights

log = logging.getLogger("verydeep.job")

_KEEP = 3
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
    """
    started = time.monotonic()
    demo = options.data == DEMO
    spec = base_spec(options.net, demo)
    side = stored_side(demo, spec.data.train.options.short_side)
    data = prepare(options.data, options.out / "data", side, options.jobs, options.demo_images)
    on_host = backend.shares_host_memory
    spec = fit_to_data(spec, data, not on_host, options.max_iter)
    if on_host:
        spec = within_memory(spec, backend, _host_memory() // 2)
    folder = options.out / "net"
    generate.write_all(spec, folder)
    log.info("Nets of %s written to %s", spec.name, folder)
    train_log = options.out / "train.jsonl"
    job = TrainJob(
        str(folder / generate.SOLVER),
        None if options.fresh else AUTO,
        log_json=str(train_log),
        keep=_KEEP,
        replicas=options.replicas,
    )
    trained = _train(job, backend, open_replica, start)
    evaluation = _evaluate(folder, trained.model, data, backend)
    files = _export(options.out, folder, trained, backend)
    files["log"] = train_log
    files["learning_curve"] = plot_learning_curve(
        train_log, options.out / "learning_curve.png", f"{spec.name}: learning curve"
    )
    files |= _draw(spec.name, evaluation, data, options.out)
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


def _host_memory() -> int:
    """The memory of this machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _train(
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


def _evaluate(folder: Path, weights: Path, data: Prepared, backend: Backend) -> Evaluation:
    """Evaluate the TEST net on every held-out image once."""
    param = text.read_net(folder / generate.TRAIN_VAL)
    scores, labels = next(
        (layer.bottom[0], layer.bottom[1]) for layer in param.layer if layer.type == "Accuracy"
    )
    sharing = Sharing(keep=frozenset({scores, labels}))
    context = RunContext(data=read_sidecar(folder / generate.SOLVER).test, sharing=sharing)
    with Net(without_fillers(param), proto.TEST, backend, context) as net:
        net_weights.copy_trained_layers(net, weights, strict=True)
        return evaluate_central_crop(net, data.val_images, scores, labels)


def _draw(net: str, evaluation: Evaluation, data: Prepared, out: Path) -> dict[str, Path]:
    """Draw the predictions and the confusion matrix; write the errors of the classes as CSV."""
    matrix = confusion_matrix(evaluation.scores, evaluation.labels, len(data.synsets))
    title = f"{net} on held-out images: top-1 error {100 * evaluation.error(1):.1f} %"
    picture = out / "predictions.png"
    return {
        "predictions": draw_predictions(data.val, evaluation, data.synsets, picture, title),
        "confusion": confusion_picture(matrix, data.synsets, out / "confusion.png"),
        "class_errors": confusion_csv(matrix, data.synsets, out / "confusion.csv"),
    }


def _export(out: Path, folder: Path, trained: TrainResult, backend: Backend) -> dict[str, Path]:
    """Export the trained net for original Caffe and others, with weights in both Caffe formats."""
    deploy = folder / generate.DEPLOY
    h5 = out / f"{trained.model.name}.h5"
    with Net(without_fillers(text.read_net(deploy)), proto.TEST, backend) as net:
        net_weights.copy_trained_layers(net, trained.model, strict=True)
        net_weights.save(net, h5)
    return {
        "caffemodel": trained.model,
        "caffemodel_h5": h5,
        "deploy": deploy,
        "dense": folder / generate.DENSE,
        "solverstate": trained.solverstate,
        "synset_words": out / "data" / "synset_words.txt",
    }
