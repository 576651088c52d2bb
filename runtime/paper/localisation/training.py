"""Training of boxes, run after run; what is done is skipped, what is begun goes on. Paper: A.1."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen import generate, heads, text
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import TrainingError
from prototxt_gen.localization import (
    BASE_LR,
    MASK_WEIGHTS,
    PER_CLASS,
    LocalizationSpec,
    paper_settings,
    write_all,
)
from prototxt_gen.spec import NetSpecification, with_values
from runtime.backend.base import Backend
from runtime.evaluate.cache import file_sha256
from runtime.job.plan import fit_to_data
from runtime.job.prepare import Prepared, prepare
from runtime.paper.driver import RecipeOptions, run_recipe, spec_sha256, train_run
from runtime.paper.localisation.mask import write_mask
from runtime.paper.localisation.prepare import BoxData, prepare_boxes, require_boxes
from runtime.paper.localisation.published import BoxRun
from runtime.paper.recipe import Step, steps_to
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting

log = logging.getLogger("verydeep.localise")

CLASSIFIER = "classifier.prototxt"
"""In a run's folder: the classification net that the run starts from, with its data layers."""
DEMO_VALUES: dict[str, Any] = {
    "dropout": 0.0,
    "solver.base_lr": 30 * BASE_LR,
    "solver.max_iter": 600,
    "solver.test_interval": 150,
    "solver.snapshot": 300,
}
"""Differences from the paper's training that a net an eighth as wide and minutes ask for."""
DEMO_CLIP = 1.0


@dataclass(frozen=True)
class BoxTraining:
    """How runs are carried out, and what they start from."""

    recipe: RecipeOptions = field(default_factory=RecipeOptions)
    weights: Path | None = None
    """Classification weights to start from at every scale; None for the recipe's runs."""


def train_boxes(
    folder: RunFolder,
    setting: Setting,
    runs: Sequence[BoxRun],
    backend: Backend,
    options: BoxTraining | None = None,
) -> list[FinishedRun]:
    """Prepare the data, train the classification nets that are missing, then the boxes.

    Raises:
        TrainingError: a run was stopped, or its folder holds a run of other settings.
        VerydeepError: what stands in the way; what is done is found next time.
    """
    options = options or BoxTraining()
    if options.weights is not None:
        file_sha256(options.weights)  # weights that cannot be read stop nothing half done
    if not setting.demo:
        require_boxes(Path(setting.data))
    recipe = options.recipe
    setting.write(folder.root)
    side = setting.stored_side
    data = prepare(setting.data, folder.data, side, recipe.jobs, recipe.demo_images)
    boxes = prepare_boxes(data, folder.data, side, recipe.jobs)
    if options.weights is None:
        steps: dict[str, Step] = {}
        for run in runs:
            steps |= {step.name: step for step in steps_to(run.net, run.scale)}
        run_recipe(folder, setting, list(steps.values()), backend, recipe)
    found = []
    for number, run in enumerate(runs, start=1):
        log.info("Boxes, run %d of %d: %s", number, len(runs), run.describe())
        found.append(_carry_out(folder, setting, run, data, boxes, backend, options))
    return found


def box_spec(
    setting: Setting,
    run: BoxRun,
    data: Prepared,
    boxes: BoxData,
    gpu: bool,
    max_iter: int | None = None,
) -> LocalizationSpec:
    """How a run's net is made and trained."""
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
    return LocalizationSpec(net, run.regression, run.fine_tune, train_boxes, val_boxes, clip)


def _carry_out(
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
    """The classification run that a run of boxes starts from.

    Raises:
        TrainingError: it is not finished.
    """
    found = folder.finished(run.classifier)
    if found is None:
        raise TrainingError(
            f"{run.name}: starts from the classification net {run.classifier}, which is not "
            f"finished in {folder.root}; expected that run first; use `verydeep localise train`, "
            "which does them in order, or give --weights"
        )
    return found


def finished(folder: RunFolder, run: BoxRun) -> FinishedRun:
    """A run of boxes that is done.

    Raises:
        TrainingError: it is not.
    """
    found = folder.finished(run.name)
    if found is None:
        raise TrainingError(
            f"{run.name}: not finished in {folder.root}; expected that run first; train it with "
            "`verydeep localise train`"
        )
    return found


def started_from(folder: RunFolder, run: BoxRun) -> Path:
    """The classification weights that a run was started from."""
    return Path(text.read_solver(folder.run(run.name) / generate.SOLVER).weights[0])
