"""The facts of a training run for its report: settings, log, test of the newest weights, times."""

from __future__ import annotations

import math
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.prefetch import BatchReader
from prototxt_gen import proto, text
from prototxt_gen.destination import exists
from prototxt_gen.errors import ProtoError, SnapshotError
from prototxt_gen.proto import Message
from prototxt_gen.sidecar import read_sidecar
from runtime.analysis.filter_tiles import first_filters
from runtime.backend.base import Backend, HostArray
from runtime.core.context import RunContext
from runtime.evaluate.central_crop import Evaluation, evaluate_central_crop
from runtime.evaluate.confusion import Matrix, confusion_matrix
from runtime.job.pictures import Predictions
from runtime.logs.reader import read_log
from runtime.net import Net
from runtime.net.fillers import without_fillers
from runtime.net.shape_net import batch_of
from runtime.solvers.nets import test_net_sources
from runtime.solvers.ownership import log_path
from runtime.solvers.snapshot import files_of, newest_snapshot
from runtime.weights.net_weights import copy_trained_layers

_MISTAKES = 12
_PASSES = 3


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction. `image` is (H,W,3) uint8, RGB, or None for data that is no image."""

    label: int
    predicted: int
    probability: float
    image: HostArray | None


@dataclass(frozen=True)
class RunFacts:
    """Everything that a report shows."""

    name: str
    solver: Path
    weights: Path
    log: Path | None
    iterations: int | None
    """The iteration of the last line of the log."""
    settings: dict[str, str]
    data: dict[str, str]
    evaluation: Evaluation
    matrix: Matrix
    mistakes: list[Mistake]
    filters: HostArray | None
    layer_times: list[tuple[str, str, float]]
    """Name, type and milliseconds forward of each layer of the test net, for one batch."""
    parameters: int
    commands: list[str] = field(default_factory=list)


def collect(
    solver: Path, backend: Backend, weights: Path | None = None, log: Path | None = None
) -> RunFacts:
    """Read a run, and test its weights: by default those of the newest snapshot.

    Raises:
        ProtoError: the solver has no test net, or the test net has no Accuracy or softmax layer.
        SnapshotError: there is no snapshot.
        DataError: the data or the log cannot be read.
    """
    param = text.read_solver(solver)
    weights = _newest(param, solver) if weights is None else weights
    if not param.test_iter:
        raise ProtoError(
            f"{solver}: no test_iter; expected a solver with a test net; add test_iter and "
            "test_interval"
        )
    log = log if log is not None else _log_of(param)
    tested = test_net_sources(param, Path())[0]
    context = RunContext(data=read_sidecar(solver).test)
    state = (tested.state.level, list(tested.state.stage))
    with Net(without_fillers(tested.param), proto.TEST, backend, context, *state) as net:
        copy_trained_layers(net, weights)
        scores, labels = _score_blobs(net)
        images = int(min(batch_of(net) * int(param.test_iter[0]), _records(net)))
        evaluation = evaluate_central_crop(net, images, scores, labels)
        classes = max(evaluation.scores.shape[1], int(evaluation.labels.max(initial=0)) + 1)
        filters = first_filters(net)
        return RunFacts(
            name=net.name or solver.stem,
            solver=solver,
            weights=weights,
            log=log,
            iterations=None if log is None else _last_iteration(log),
            settings=_settings(param),
            data=_data(net, images),
            evaluation=evaluation,
            matrix=confusion_matrix(evaluation.scores, evaluation.labels, classes),
            mistakes=_mistakes(net, evaluation),
            filters=None if filters is None else filters.copy(),
            layer_times=_times(net),
            parameters=sum(blob.count() for blob in net.params.learnable),
            commands=_commands(solver, weights),
        )


def _newest(param: Message, solver: Path) -> Path:
    state = newest_snapshot(param.snapshot_prefix) if param.snapshot_prefix else None
    if state is None:
        raise SnapshotError(
            f"{solver}: no complete snapshot of snapshot_prefix {str(param.snapshot_prefix)!r}; "
            "expected a finished or stopped run; train it, or give --weights"
        )
    return files_of(state)[0]


def _log_of(param: Message) -> Path | None:
    path = log_path(str(param.snapshot_prefix))
    return path if param.snapshot_prefix and exists(path) else None


def _last_iteration(log: Path) -> int | None:
    rows = read_log(log).train
    return int(rows[-1]["NumIters"]) if rows else None


def _score_blobs(net: Net) -> tuple[str, str]:
    """The blobs of scores and labels: the bottoms of an accuracy or a loss.

    Raises:
        ProtoError: no layer reads both.
    """
    for layer in net.layers:
        if layer.reads_scores and len(layer.param.bottom) > 1:
            return str(layer.param.bottom[0]), str(layer.param.bottom[1])
    raise ProtoError(
        f"net '{net.name}': no layer reads scores and labels in the phase TEST; expected an "
        "Accuracy or SoftmaxWithLoss layer; add one to the test net"
    )


def _records(net: Net) -> float:
    """The number of records of the layer of images; infinity if it is unknown."""
    readers = (getattr(layer, "reader", None) for layer in net.layers)
    return min(
        (len(reader.plan.source) for reader in readers if isinstance(reader, BatchReader)),
        default=math.inf,
    )


def _settings(param: Message) -> dict[str, str]:
    names = [
        *("type", "base_lr", "lr_policy", "gamma", "stepsize", "momentum", "weight_decay"),
        *("max_iter", "iter_size", "random_seed"),
    ]
    values = {name: getattr(param, name) for name in names if param.HasField(name)}
    return {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in values.items()
    }


def _data(net: Net, images: int) -> dict[str, str]:
    result = {"images tested": str(images)}
    for layer in net.layers:
        if layer.param.bottom or not layer.param.top:
            continue
        result["layer"] = f"{layer.param.name} ({layer.type})"
        for field_name in ("data_param", "image_data_param", "hdf5_data_param"):
            if layer.param.HasField(field_name):
                result["source"] = str(getattr(layer.param, field_name).source)
        result["shape of a batch"] = " x ".join(map(str, net.blobs[layer.param.top[0]].shape))
        transform = layer.param.transform_param
        if transform.mean_value:
            result["mean"] = ", ".join(f"{value:g}" for value in transform.mean_value)
        if transform.HasField("scale"):
            result["scale"] = f"{transform.scale:g}"
        break
    return result


def _mistakes(net: Net, evaluation: Evaluation) -> list[Mistake]:
    """The errors whose true class has the lowest probability; their batches are read again."""
    predictions = Predictions.of(evaluation)
    source = next(layer for layer in net.layers if layer.param.top and not layer.param.bottom)
    batch = batch_of(net)
    result = []
    for index in predictions.worst(_MISTAKES):
        net.context.pass_number = index // batch
        net.forward(0, net.layers.index(source))
        blob = net.blobs[source.param.top[0]]
        image = _pixels(blob.data.host()[index % batch], source.param.transform_param)
        result.append(
            Mistake(
                int(predictions.labels[index]),
                int(predictions.predicted[index]),
                float(predictions.probability[index]),
                image,
            )
        )
    return result


def _pixels(values: HostArray, transform: Any) -> HostArray | None:
    """The RGB pixels of a prepared image; without a mean pixel, stretched to its range."""
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        return None
    if transform.mean_value:
        mean = np.array(transform.mean_value, np.float32).reshape(-1, 1, 1)
        pixels = values / np.float32(transform.scale or 1) + mean
    else:
        span = float(values.max() - values.min()) or 1.0
        pixels = 255 * (values - values.min()) / span
    rgb = np.clip(np.rint(pixels), 0, 255).astype(np.uint8).transpose(1, 2, 0)[:, :, ::-1]
    return np.ascontiguousarray(np.repeat(rgb, 3 // rgb.shape[2], axis=2))


def _times(net: Net) -> list[tuple[str, str, float]]:
    """The shortest of some passes of each layer, forward."""
    best = [float("inf")] * len(net.layers)
    for _ in range(_PASSES):
        last = time.perf_counter()

        def after(index: int) -> None:
            nonlocal last
            net.backend.memory.synchronize()
            now = time.perf_counter()
            best[index] = min(best[index], 1000 * (now - last))
            last = now

        net.forward(after_layer=after)
    return [
        (str(layer.param.name), layer.type, best[index]) for index, layer in enumerate(net.layers)
    ]


def _commands(solver: Path, weights: Path) -> list[str]:
    solver_words, weight_words = shlex.quote(str(solver)), shlex.quote(str(weights))
    return [
        f"verydeep train --solver {solver_words}",
        f"verydeep train --solver {solver_words} --eval-only --weights {weight_words}",
        f"verydeep report {solver_words} --weights {weight_words}",
    ]
