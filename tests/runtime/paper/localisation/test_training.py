"""Training of localisation nets: losses, trained layers, and finished runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.lmdb_io import Reader
from prototxt_gen import generate, text
from prototxt_gen.errors import DataError, TrainingError
from prototxt_gen.localisation import (
    FC,
    SINGLE_CLASS,
)
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.evaluate.cache import file_sha256
from runtime.job.prepare import Prepared
from runtime.paper.driver import RecipeOptions
from runtime.paper.localisation.baselines import centre_boxes, training_boxes
from runtime.paper.localisation.evaluation import BoxEvaluator, BoxMember
from runtime.paper.localisation.prepare import BoxData, find_boxes, prepare_boxes
from runtime.paper.localisation.published import BoxRun
from runtime.paper.localisation.training import (
    CLASSIFIER,
    BoxTraining,
    box_spec,
    initial_weights,
    start_of,
    train_boxes,
)
from runtime.paper.localisation.truth import read_truth
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting
from tests.runtime.paper.localisation.toy_boxes import weights_of

BACKEND = create_backend("cpu")
RECIPE = RecipeOptions(jobs=1, max_iter=2, demo_images=(40, 10))
PCR, SCR_FC = BoxRun("A", 256), BoxRun("A", 256, SINGLE_CLASS, FC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two runs of boxes of two iterations, with the classification net they start from."""
    found = RunFolder(tmp_path_factory.mktemp("boxes"))
    train_boxes(found, Setting(), [PCR, SCR_FC], BACKEND, BoxTraining(RECIPE))
    return found


def finished(folder: RunFolder, run: BoxRun) -> FinishedRun:
    done = folder.finished(run.name)
    assert done is not None
    return done


def test_a_run_starts_from_the_classification_net(folder: RunFolder) -> None:
    done, start = finished(folder, PCR), start_of(folder, PCR)
    assert start.name == "A-256"
    assert initial_weights(done) == start.weights
    assert done.note["weights_sha256"] == file_sha256(done.weights)
    solver = text.read_solver(folder.run(PCR.name) / generate.SOLVER)
    assert list(solver.weights) == [
        start.weights.as_posix(),
        (folder.run(PCR.name) / "mask.caffemodel").as_posix(),
    ]
    assert read_sidecar(folder.run(PCR.name) / generate.SOLVER).train.boxes == "box"
    assert solver.clip_gradients == 1.0
    before, after = weights_of(start.weights), weights_of(done.weights)
    assert set(after) == {*before, "fc8-pcr", "mask"} - {"fc8"}
    assert after["fc8-pcr"].shape[0] == 40
    np.testing.assert_array_equal(after["mask"], np.repeat(np.eye(10), 4, axis=1))
    for name in set(after) - {"fc8-pcr", "mask"}:
        assert np.corrcoef(before[name].ravel(), after[name].ravel())[0, 1] > 0.9, name
        assert not np.array_equal(before[name], after[name]), name


def test_fine_tuning_the_fully_connected_layers_leaves_the_others(folder: RunFolder) -> None:
    done, start = finished(folder, SCR_FC), start_of(folder, SCR_FC)
    before, after = weights_of(start.weights), weights_of(done.weights)
    assert after["fc8-scr"].shape[0] == 4
    for name in set(before) & set(after):
        same = np.array_equal(before[name], after[name])
        assert same == name.startswith("conv"), name


def test_finished_runs_are_skipped(folder: RunFolder) -> None:
    stamp = finished(folder, PCR).weights.stat().st_mtime_ns
    note = (folder.data / "train_box_lmdb.json").stat().st_mtime_ns
    train_boxes(folder, Setting(), [PCR], BACKEND, BoxTraining(RECIPE))
    assert finished(folder, PCR).weights.stat().st_mtime_ns == stamp
    assert (folder.data / "train_box_lmdb.json").stat().st_mtime_ns == note


def test_other_settings_are_refused(folder: RunFolder) -> None:
    options = BoxTraining(dataclasses.replace(RECIPE, max_iter=3), start_of(folder, PCR).weights)
    with pytest.raises(
        TrainingError, match="contains a run with another spec; expected the settings"
    ):
        train_boxes(folder, Setting(), [PCR], BACKEND, options)


def test_runs_that_are_missing(tmp_path: Path) -> None:
    empty = RunFolder(tmp_path)
    with pytest.raises(TrainingError) as caught:
        start_of(empty, PCR)
    assert str(caught.value) == (
        f"A-256-pcr-all: starts from the classification net A-256, which is not finished in "
        f"{tmp_path}; expected that run first; use `verydeep localise train`, which trains the "
        "runs in order, or give --weights"
    )
    with pytest.raises(DataError) as no_data:
        find_boxes(tmp_path)
    assert str(no_data.value) == (
        f"{tmp_path}/train_lmdb: no such database; expected what `verydeep localise train` "
        "prepares; run it first with the same --out"
    )


def test_images_without_boxes_get_a_database_of_the_others(
    folder: RunFolder, tmp_path: Path
) -> None:
    """Some of the training images lose their XML; an incomplete database of boxes is rewritten."""
    root = tmp_path / "images"
    shutil.copytree(folder.data / "images", root)
    xmls = sorted((root / "bbox/train").rglob("*.xml"))
    for path in xmls[:5]:
        path.unlink()
    data = Prepared(
        root, folder.data / "train_lmdb", folder.data / "val_lmdb", Path(), (0, 0, 0), 40, 10, ()
    )
    (tmp_path / "train_box_lmdb").mkdir()
    found = prepare_boxes(data, tmp_path, 112, 1)
    assert found.train == tmp_path / "boxed_train_lmdb"
    assert found.val == data.val
    with Reader(found.train) as images, Reader(found.train_boxes) as boxes:
        assert len(images) == len(boxes) == 35
        assert [images.key(i) for i in range(35)] == [boxes.key(i) for i in range(35)]
    assert find_boxes(tmp_path) == (found.train, found.train_boxes)
    assert json.loads((tmp_path / "train_box_lmdb.json").read_text())["images"] == (
        "boxed_train_lmdb"
    )


def test_at_full_size_the_settings_are_the_papers(tmp_path: Path) -> None:
    """Net D at S = 384 from 1e-3 on, the batch of 256, images mirrored, no bound on gradients."""
    names = tuple(f"n{label}" for label in range(1000))
    data = Prepared(tmp_path, Path("t"), Path("v"), Path("p"), (1, 2, 3), 99, 50, names)
    boxes = BoxData(Path("bt"), Path("btb"), Path("bv"), Path("bvb"))
    run = BoxRun()
    spec = box_spec(Setting(str(tmp_path)), run, data, boxes, gpu=True)
    assert spec.net.name == "VGG-D-384-pcr-all"
    assert (spec.net.solver.base_lr, spec.net.data.train.batch_size) == (1e-3, 256)
    assert spec.net.data.train.options.short_side == 384
    assert spec.net.data.train.mirror
    assert spec.clip_gradients is None
    assert (spec.net.data.train.source, spec.train_boxes) == ("bt", "btb")
    assert (spec.net.data.test.source, spec.test_boxes) == ("bv", "bvb")
    assert spec.outputs == 4000


@pytest.mark.slow
def test_boxes_are_learnt(tmp_path: Path) -> None:
    """The bar: at most half the centre box's error, by a box for each class and by a single one.

    The classification net is trained for a while only, to keep the test within minutes.
    """
    out = RunFolder(tmp_path)
    recipe = ["recipe", "--net", "A", "--scales", "256", "--out", str(tmp_path)]
    assert main([*recipe, "--max-iter", "800"]) == 0
    weights = out.finished("A-256")
    assert weights is not None
    truth, error = None, {}
    for run in (PCR, BoxRun("A", 256, SINGLE_CLASS)):
        (done,) = train_boxes(
            out, Setting(), [run], BACKEND, BoxTraining(RecipeOptions(None, 400), weights.weights)
        )
        truth = truth or read_truth(out.data / "images")
        classifier = out.run(run.name) / CLASSIFIER
        member = BoxMember(done.model, done.weights, classifier, weights.weights, (72,))
        judge = BoxEvaluator(truth, BACKEND)
        error[run.regression] = judge.central(member).error
        trained = training_boxes(*find_boxes(out.data))
        centre = judge.error_of_fixed(centre_boxes(truth, trained))
    assert 0.4 < centre < 0.9
    assert max(error.values()) <= centre / 2, (error, centre)
