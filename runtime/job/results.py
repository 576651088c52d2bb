"""What follows a training: evaluation, exported weights, pictures, and a bundle."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen import generate, proto, text
from prototxt_gen.errors import VerydeepError
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.base import Backend
from runtime.bundle.bundle import SUFFIX, Bundle
from runtime.bundle.preprocessing import Preprocessing
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.evaluate.central_crop import Evaluation, evaluate_central_crop
from runtime.evaluate.confusion import confusion_csv, confusion_matrix, confusion_picture
from runtime.job.pictures import draw_predictions
from runtime.job.prepare import Prepared
from runtime.job.training import TrainResult
from runtime.net import Net
from runtime.net.fillers import without_fillers
from runtime.solvers.resume_state import sha256_of
from runtime.weights import net_weights
from runtime.weights.weights_file import open_weights

log = logging.getLogger("verydeep.job")

_MOST_CONFUSED = 5000
"""Classes above which the confusion matrix, of their square, is not computed."""


def evaluate_run(folder: Path, weights: Path, images: int, backend: Backend) -> Evaluation:
    """Evaluate the TEST net of a folder of prototxts on its first `images` held-out images."""
    param = text.read_net(folder / generate.TRAIN_VAL)
    scores, labels = next(
        (layer.bottom[0], layer.bottom[1]) for layer in param.layer if layer.type == "Accuracy"
    )
    sharing = Sharing(keep=frozenset({scores, labels}))
    context = RunContext(data=read_sidecar(folder / generate.SOLVER).test, sharing=sharing)
    with Net(without_fillers(param), proto.TEST, backend, context) as net:
        net_weights.copy_trained_layers(net, weights, strict=True)
        return evaluate_central_crop(net, images, scores, labels)


def draw_results(net: str, evaluation: Evaluation, data: Prepared, out: Path) -> dict[str, Path]:
    """Draw the predictions and the confusion matrix; write the errors of the classes as CSV."""
    title = f"{net} on held-out images: top-1 error {100 * evaluation.error(1):.1f} %"
    picture = out / "predictions.png"
    files = {"predictions": draw_predictions(data.val, evaluation, data.synsets, picture, title)}
    if len(data.synsets) > _MOST_CONFUSED:
        log.info("%d classes: no confusion matrix", len(data.synsets))
        return files
    matrix = confusion_matrix(evaluation.scores, evaluation.labels, len(data.synsets))
    return files | {
        "confusion": confusion_picture(matrix, data.synsets, out / "confusion.png"),
        "class_errors": confusion_csv(matrix, data.synsets, out / "confusion.csv"),
    }


def export_hdf5(out: Path, folder: Path, model: Path, backend: Backend) -> Path:
    """Write the trained weights of the deploy net in Caffe's HDF5 format as well."""
    h5 = out / f"{model.name}.h5"
    with Net(without_fillers(text.read_net(folder / generate.DEPLOY)), proto.TEST, backend) as net:
        net_weights.copy_trained_layers(net, model, ignore=_unused(net, model))
        net_weights.save(net, h5)
    return h5


def write_bundle(
    out: Path,
    folder: Path,
    trained: TrainResult,
    preprocessing: Preprocessing,
    data: Prepared,
    evaluation: Evaluation,
    provenance: Mapping[str, Any],
    licence: str = "",
) -> Path:
    """Write the deploy net with its weights and what is needed to use them; returns its path."""
    name = str(text.read_net(folder / generate.DEPLOY).name)
    bundle = Bundle(
        folder / generate.DEPLOY,
        trained.model,
        preprocessing,
        label_names(data.synsets),
        name,
        licence,
        metrics_of(evaluation),
        {"iterations": trained.iterations, "data": str(data.root)} | dict(provenance),
    )
    path = out / f"model{SUFFIX}"
    return path if _is_written(bundle, path) else bundle.write(path)


def _is_written(bundle: Bundle, path: Path) -> bool:
    """Whether a path has a bundle with the same content."""
    try:
        written = Bundle.load(path)
    except VerydeepError:
        return False
    files = ("model", "weights")
    same_files = all(
        sha256_of(getattr(bundle, part)) == sha256_of(getattr(written, part)) for part in files
    )
    return same_files and json.dumps(_facts(bundle)) == json.dumps(_facts(written))


def _facts(bundle: Bundle) -> dict[str, Any]:
    return {
        key: getattr(bundle, key) for key in ("labels", "name", "licence", "metrics", "provenance")
    } | {"preprocessing": bundle.preprocessing.to_json()}


def metrics_of(evaluation: Evaluation) -> dict[str, Any]:
    """The errors as fractions, and what they were measured on."""
    return {
        "top1_error": evaluation.error(1),
        "top5_error": evaluation.error(5),
        "held_out_images": len(evaluation.labels),
        "protocol": "one central crop",
    }


def label_names(synsets: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes as labels, one line each."""
    return tuple(" ".join(name.split()) for name in synsets)


def _unused(net: Net, model: Path) -> list[str]:
    """The layers of a file that a deploy net does not have, such as auxiliary heads."""
    with open_weights(model) as layers:
        names = [str(layer.name) for layer in layers]
    return [name for name in names if net.layer_by_name(name) is None]
