"""Training of localisation nets. Finished runs are skipped, interrupted ones resumed. Paper: A.1"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import generate, heads, proto, text
from prototxt_gen.destination import utf8_path
from prototxt_gen.localisation import (
    BASE_LR,
    MASK_WEIGHTS,
    NUMBERS,
    PER_CLASS,
    LocalisationSpec,
    mask_net,
    paper_settings,
    write_all,
)
from prototxt_gen.spec import NetSpecification, with_values
from runtime.backend.base import Backend
from runtime.evaluate.cache import file_sha256
from runtime.job.plan import fit_to_data
from runtime.job.prepare import Prepared
from runtime.net import Net
from runtime.paper.driver import RecipeOptions, prepare_data, run_recipe, spec_sha256, train_run
from runtime.paper.localisation.prepare import BoxData, prepare_boxes, require_boxes
from runtime.paper.localisation.published import BoxRun
from runtime.paper.recipe import Step, steps_for
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting
from runtime.weights import net_weights

log = logging.getLogger("verydeep.localise")

CLASSIFIER = "classifier.prototxt"
"""In the folder of a run: the classification net that it starts from, with its data layers."""
DEMO_VALUES: dict[str, Any] = {
    "dropout": 0.0,
    "solver.base_lr": 30 * BASE_LR,
    "solver.max_iter": 600,
    "solver.test_interval": 150,
    "solver.snapshot": 300,
}
"""The differences from the paper's training, for a net of an eighth of the width."""
DEMO_CLIP = 1.0


@dataclass(frozen=True)
class BoxTraining:
    """The options of training, and the initial weights."""

    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    weights: Path | None = None
    """Classification weights to start from at every scale; None for those of the recipe's runs."""


def train_boxes(
    folder: RunFolder,
    setting: Setting,
    runs: Sequence[BoxRun],
    backend: Backend,
    options: BoxTraining | None = None,
) -> list[FinishedRun]:
    """Prepare the data and train the missing classification nets, then the localisation nets.

    Raises:
        TrainingError: a run was stopped, or its folder contains a run with other settings.
        VerydeepError: data preparation or training failed; finished runs are kept.
    """
    options = options or BoxTraining()
    if options.weights is not None:
        file_sha256(options.weights)  # fails before any work if the file cannot be read
    if not setting.demo:
        require_boxes(Path(setting.data))
    data = prepare_data(folder, setting, options.recipe)
    boxes = prepare_boxes(data, folder.data, setting.stored_side, options.recipe.jobs)
    if options.weights is None:
        steps = steps_for((run.net, run.scale) for run in runs)
        run_recipe(folder, setting, steps, backend, options.recipe)
    finished = []
    for number, run in enumerate(runs, start=1):
        log.info("Boxes, run %d of %d: %s", number, len(runs), run.describe())
        finished.append(_train_boxes(folder, setting, run, data, boxes, backend, options))
    return finished


def box_spec(
    setting: Setting,
    run: BoxRun,
    data: Prepared,
    boxes: BoxData,
    gpu: bool,
    max_iter: int | None = None,
) -> LocalisationSpec:
    """Return the net and the training of a run."""
    net = paper_settings(setting.spec(Step(run.net, run.scale)))
    if setting.demo:
        net = with_values(net, DEMO_VALUES)
    net = fit_to_data(net, data, gpu, max_iter)
    net = with_values(
        net,
        {
            "name": f"{net.name}-{run.regression}-{run.fine_tune}",
            "data.train.source": utf8_path(boxes.train),
            "data.test.source": utf8_path(boxes.val),
        },
    )
    train_boxes, val_boxes = boxes.train_boxes.as_posix(), boxes.val_boxes.as_posix()
    clip = DEMO_CLIP if setting.demo else None
    return LocalisationSpec(net, run.regression, run.fine_tune, train_boxes, val_boxes, clip)


def _train_boxes(
    folder: RunFolder,
    setting: Setting,
    run: BoxRun,
    data: Prepared,
    boxes: BoxData,
    backend: Backend,
    options: BoxTraining,
) -> FinishedRun:
    on_gpu = not backend.shares_host_memory
    spec = box_spec(setting, run, data, boxes, on_gpu, options.recipe.max_iter)
    start = options.weights or start_of(folder, run).weights
    made_of = {
        "spec": spec_sha256(spec.net),
        "start": file_sha256(start),
        "boxes": [run.regression, run.fine_tune, spec.clip_gradients],
    }

    def write(target: Path, fitting: NetSpecification) -> Path:
        weights = [start.as_posix()]
        if run.regression == PER_CLASS:
            mask = write_mask(target / MASK_WEIGHTS, fitting.classes, backend)
            weights.append(mask.as_posix())
        write_all(dataclasses.replace(spec, net=fitting), target, tuple(weights))
        text.write(target / CLASSIFIER, heads.train_val(fitting))
        return target / generate.SOLVER

    return train_run(folder, run.name, spec.net, backend, made_of, run.describe(), write)


def start_of(folder: RunFolder, run: BoxRun) -> FinishedRun:
    """Return the classification run that a localisation run starts from.

    Raises:
        TrainingError: it is not finished.
    """
    return folder.require(
        run.classifier,
        f"{run.name}: starts from the classification net {run.classifier}",
        "use `verydeep localise train`, which trains the runs in order, or give --weights",
    )


def initial_weights(run: FinishedRun) -> Path:
    """Return the file of classification weights that a localisation run was started from."""
    return Path(text.read_solver(run.model.with_name(generate.SOLVER)).weights[0])


def write_mask(path: Path, classes: int, backend: Backend) -> Path:
    """Write the weights of the layer `mask` as a .caffemodel; return its path.

    The row of each class is 1 for its four numbers and 0 for all others. A solver reads the file
    after the classification weights.
    """
    with Net(mask_net(classes), proto.TEST, backend) as net:
        rows = np.repeat(np.eye(classes, dtype=np.float32), NUMBERS, axis=1)
        net.params.learnable[0].data.mutable_host()[...] = rows
        net_weights.save(net, path)
    return path
