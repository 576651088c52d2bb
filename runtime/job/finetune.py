"""Fine-tunes any classification net on a data set, in steps; done steps are not repeated."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.data_set import Split
from prototxt_gen import generate, proto, text
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import (
    DataError,
    DeviceError,
    UsageError,
)
from prototxt_gen.files import atomic_write_text
from prototxt_gen.integers import ceil_div
from prototxt_gen.proto import Message
from prototxt_gen.reading import read_json
from prototxt_gen.sidecar import DataOptions, Sidecar, sidecar_path, sidecar_text
from prototxt_gen.solver import solver_text
from runtime.analysis.memory_estimate import in_gib, passes_within
from runtime.backend.base import Backend
from runtime.bundle.preprocessing import Preprocessing
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.job.finetune_net import (
    DataLayers,
    FinetuneNet,
    Heads,
    finetune_net,
)
from runtime.job.finetune_start import Start, check_weights, starting_point
from runtime.job.prepare import Prepared, prepare
from runtime.job.results import draw_results, evaluate_run, export_hdf5, write_bundle
from runtime.job.run import KEEP, host_memory, train_to_end, version
from runtime.job.training import AUTO, StartReplicas, TrainJob
from runtime.logs.learning_curve import plot_learning_curve
from runtime.logs.pace import format_duration
from runtime.net import Net
from runtime.net.fillers import without_fillers
from runtime.net.shape_net import shape_net
from runtime.solvers.resume_state import sha256_of
from runtime.solvers.run_lock import lock_run

log = logging.getLogger("verydeep.job")

SETTINGS = "finetune.json"
RESULT = "result.json"
_TEST_BATCH = 50
_TRIAL_BATCH = 4
_TRIAL_PASSES = 3
_TESTS = 20
"""The most tests of a training."""
_SHOWN = 5
_EPOCHS, _LEAST_ITERATIONS = 10, 200


@dataclass(frozen=True)
class FinetuneOptions:
    """What is fine-tuned, on which data, and how; None for a value that is chosen."""

    weights: Path
    """A file of weights, or a bundle."""
    data: str
    out: Path
    model: Path | None = None
    """A train_val or deploy prototxt; None for the net in the bundle or in the .caffemodel."""
    freeze: tuple[str, ...] = ()
    layer_name: str | None = None
    rate: float = 10.0
    """The factor of the learning rate of the new classifier."""
    base_lr: float = 0.001
    epochs: float | None = None
    """Passes over the training images; None for 10, in at least 200 iterations."""
    max_iter: int | None = None
    batch_size: int = 32
    mean_value: tuple[float, ...] | None = None
    scale: float | None = None
    short_side: int | None = None
    mirror: bool = True
    seed: int = 1
    split: Split = field(default_factory=Split)
    jobs: int | None = None
    replicas: int = 1
    fresh: bool = False


def run_finetune(
    options: FinetuneOptions,
    backend: Backend,
    open_replica: Callable[[int], Backend] | None = None,
    start: StartReplicas | None = None,
) -> Path:
    """Prepare, fine-tune, evaluate, export, draw and write a bundle; returns result.json's path.

    Raises:
        VerydeepError: a step failed; the next run continues from the files written so far.
        SnapshotError: another job writes to the folder.
    """
    with lock_run(options.out / "job", advice="another folder"):
        return _run_finetune(options, backend, open_replica, start)


def _run_finetune(
    options: FinetuneOptions,
    backend: Backend,
    open_replica: Callable[[int], Backend] | None,
    start: StartReplicas | None,
) -> Path:
    started = time.monotonic()
    begin = starting_point(options.weights, options.model)
    data, preprocessing = _prepare(options, begin, backend)
    folder = options.out / "net"
    nets, solver = _write(options, begin, data, preprocessing, folder, backend)
    log.info("New classifier: %s, %d classes", ", ".join(nets.replaced.values()), len(data.synsets))
    if nets.frozen:
        log.info("Not trained: %s", ", ".join(nets.frozen))
    _estimate(nets, solver, backend)
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
    name = str(nets.train_val.name)
    files: dict[str, Path] = {
        "caffemodel": trained.model,
        "caffemodel_h5": export_hdf5(options.out, folder, trained.model, backend),
        "deploy": folder / generate.DEPLOY,
        "solverstate": trained.solverstate,
        "labels": options.out / "data" / "synset_words.txt",
        "log": train_log,
        "learning_curve": plot_learning_curve(
            train_log, options.out / "learning_curve.png", f"{name}: learning curve"
        ),
    }
    files |= draw_results(name, evaluation, data, options.out)
    provenance = _settings(options, begin, data) | {"seed": options.seed, "verydeep": version()}
    licence = f"weights derived from weights under: {begin.licence}" if begin.licence else ""
    files["bundle"] = write_bundle(
        options.out, folder, trained, preprocessing, data, evaluation, provenance, licence
    )
    result = {
        "net": name,
        "classes": len(data.synsets),
        "iterations": trained.iterations,
        "top1_error": evaluation.error(1),
        "top5_error": evaluation.error(5),
        "held_out_images": len(evaluation.labels),
        "seconds": round(time.monotonic() - started, 1),
        **{key: str(path) for key, path in files.items()},
    }
    path = options.out / RESULT
    atomic_write_text(path, json.dumps(result, indent=2) + "\n")
    return path


def _prepare(
    options: FinetuneOptions, begin: Start, backend: Backend
) -> tuple[Prepared, Preprocessing]:
    """Check the net and the weights, then convert the images."""
    probe = finetune_net(begin.model, _heads(options, 2), DataLayers("", "", 1, 1), backend)
    check_weights(begin.weights, probe, backend)
    side = options.short_side or _short_side(begin, probe.crop[0])
    if side < probe.crop[0]:
        raise UsageError(
            f"--short-side: expected at least the net's input of {probe.crop[0]} pixels, got {side}"
        )
    data = prepare(options.data, options.out / "data", side, options.jobs, split=options.split)
    preprocessing = _preprocessing(options, begin, data, side, probe.crop)
    origin = begin.origin if options.mean_value is None else "mean from --mean-value"
    log.info("Images: %s (%s)", preprocessing.describe(), origin)
    return data, preprocessing


def _heads(options: FinetuneOptions, classes: int) -> Heads:
    return Heads(classes, options.rate, options.layer_name, options.freeze)


def _short_side(begin: Start, crop: int) -> int:
    known = begin.preprocessing
    if known is not None and known.short_side is not None:
        return max(known.short_side, crop)
    if known is not None and known.warp is not None:
        return max(min(known.warp), crop)
    return crop * 8 // 7


def _preprocessing(
    options: FinetuneOptions, begin: Start, data: Prepared, side: int, crop: tuple[int, int]
) -> Preprocessing:
    known = begin.preprocessing
    mean = data.mean_pixel if known is None else known.mean_value
    if options.mean_value is not None:
        mean = options.mean_value
    scale = 1.0 if known is None else known.scale
    return Preprocessing(
        crop, side, None, tuple(mean), options.scale if options.scale is not None else scale
    )


def _settings(options: FinetuneOptions, begin: Start, data: Prepared) -> dict[str, Any]:
    """Everything that the snapshots of a run depend on."""
    return {
        "weights": str(options.weights),
        "weights_sha256": sha256_of(begin.weights),
        "data": str(data.root),
        "classes": len(data.synsets),
        "train_images": data.train_images,
        "freeze": list(options.freeze),
        "layer_name": options.layer_name,
        "rate": options.rate,
        "base_lr": options.base_lr,
        "batch_size": options.batch_size,
    }


def _check_settings(options: FinetuneOptions, settings: dict[str, Any]) -> None:
    """Refuse a folder with a run of other settings, unless the training begins again.

    Raises:
        DataError: the folder has another run.
    """
    note = options.out / SETTINGS
    if note.is_file() and not options.fresh:
        try:
            earlier = read_json(note, regular=True)
        except (OSError, ValueError) as cause:
            raise DataError(
                f"{note}: cannot be read: {cause}; delete it, or use another --out"
            ) from cause
        before = earlier if isinstance(earlier, dict) else {}
        changed = [key for key, value in settings.items() if before.get(key) != value]
        if changed:
            key = changed[0]
            raise DataError(
                f"{options.out}: has a run with another {key}; expected {before.get(key)!r}, got "
                f"{settings[key]!r}; use another --out, or --fresh to begin again"
            )
    atomic_write_text(note, json.dumps(settings, indent=2) + "\n", DataError)


def _write(
    options: FinetuneOptions,
    begin: Start,
    data: Prepared,
    preprocessing: Preprocessing,
    folder: Path,
    backend: Backend,
) -> tuple[FinetuneNet, Message]:
    """Write the nets, the solver and its sidecar."""
    _check_settings(options, _settings(options, begin, data))
    batch = min(options.batch_size, data.train_images)
    test_batch = min(_TEST_BATCH, data.val_images)
    layers = DataLayers(
        utf8_path(data.train),
        utf8_path(data.val),
        batch,
        test_batch,
        preprocessing.mean_value,
        preprocessing.scale,
        options.mirror,
    )
    heads = _heads(options, len(data.synsets))
    nets = finetune_net(begin.model, heads, layers, backend)
    solver = _solver(options, begin, data, batch, test_batch, folder, nets, backend)
    passes = _passes(nets, solver, batch, backend)
    if passes > 1:
        solver.iter_size = passes
        layers = dataclasses.replace(layers, train_batch=batch // passes)
        nets = finetune_net(begin.model, heads, layers, backend)
    sidecar = Sidecar(
        train=DataOptions(preprocessing.short_side, shuffle=True),
        test=DataOptions(preprocessing.short_side),
    )
    path = folder / generate.SOLVER
    for target, content in (
        (folder / generate.TRAIN_VAL, text.to_text(nets.train_val)),
        (folder / generate.DEPLOY, text.to_text(nets.deploy)),
        (path, solver_text(solver, sidecar_path(path))),
        (sidecar_path(path), sidecar_text(sidecar, generate.SOLVER)),
    ):
        atomic_write_text(target, content, DataError)
    return nets, solver


def _solver(
    options: FinetuneOptions,
    begin: Start,
    data: Prepared,
    batch: int,
    test_batch: int,
    folder: Path,
    nets: FinetuneNet,
    backend: Backend,
) -> Message:
    epoch = ceil_div(data.train_images, batch)
    last = options.max_iter or _iterations(options.epochs, data.train_images, batch)
    solver = proto.SolverParameter(
        net=(folder / generate.TRAIN_VAL).as_posix(),
        snapshot_prefix=utf8_path(folder / str(nets.train_val.name).replace("/", "_")),
        base_lr=options.base_lr,
        lr_policy="poly",
        power=1.0,
        momentum=0.9,
        weight_decay=5e-4,
        max_iter=last,
        display=max(1, min(20, last // 20)),
        test_interval=min(last, max(epoch, last // _TESTS)),
        snapshot=min(last, max(2 * epoch, last // _TESTS)),
        random_seed=options.seed,
    )
    solver.test_iter.append(ceil_div(data.val_images, test_batch))
    solver.solver_mode = solver.CPU if backend.shares_host_memory else solver.GPU
    solver.weights.append(utf8_path(begin.weights))
    return solver


def _iterations(epochs: float | None, images: int, batch: int) -> int:
    if epochs is None:
        return max(_LEAST_ITERATIONS, ceil_div(_EPOCHS * images, batch))
    return max(1, round(epochs * images / batch))


def _passes(nets: FinetuneNet, solver: Message, batch: int, backend: Backend) -> int:
    """The passes in which a batch fits into half of the host's memory.

    Raises:
        DeviceError: a single image does not fit.
    """
    if not backend.shares_host_memory:
        return 1
    budget = host_memory() // 2
    net = shape_net(nets.train_val, proto.TRAIN, backend, RunContext(sharing=Sharing()))
    passes = passes_within(net, budget, batch, solver)
    if passes is None:
        raise DeviceError(
            f"net {nets.train_val.name}: even one image does not fit into {in_gib(budget)}; "
            "expected more memory; use a smaller net"
        )
    if passes > 1:
        log.info("The batch of %d is computed in %d passes to fit into memory", batch, passes)
    return passes


def _estimate(nets: FinetuneNet, solver: Message, backend: Backend) -> None:
    """Time a small batch and log how long the whole training will take."""
    param = proto.NetParameter()
    param.CopyFrom(nets.train_val)
    batch = 0
    for layer in param.layer:
        if layer.HasField("data_param"):
            batch = batch or int(layer.data_param.batch_size)
            layer.data_param.batch_size = min(_TRIAL_BATCH, batch)
    context = RunContext(
        data=DataOptions(int(nets.crop[0])), sharing=Sharing(), replaced=frozenset()
    )
    with Net(without_fillers(param), proto.TRAIN, backend, context) as net:
        times = []
        for _ in range(_TRIAL_PASSES):
            before = time.monotonic()
            net.forward()
            net.backward()
            times.append(time.monotonic() - before)
        # The first pass allocates memory.
        seconds = min(times) / min(_TRIAL_BATCH, batch)
    images = batch * int(solver.iter_size)
    total = seconds * images * int(solver.max_iter)
    log.info(
        "Training: %d iterations of %d images, about %s at %.1f images/s on %s",
        int(solver.max_iter),
        images,
        format_duration(total),
        1 / max(seconds, 1e-9),
        backend.name,
    )
