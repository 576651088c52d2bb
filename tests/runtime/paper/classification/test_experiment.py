"""The experiment with two iterations per run: all runs and tables, without repeated training."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen import text
from prototxt_gen.errors import DataError, SnapshotError, TrainingError
from prototxt_gen.sidecar import read_sidecar
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.evaluate.cache import file_sha256
from runtime.paper import driver
from runtime.paper.classification.experiment import reproduce
from runtime.paper.classification.tables import TableMaker
from runtime.paper.driver import RecipeOptions, run_recipe
from runtime.paper.recipe import Step, steps_to
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting, read_setting
from runtime.weights.weights_file import open_weights

OPTIONS = RecipeOptions(jobs=1, max_iter=2, demo_images=(40, 10))


def recipe(folder: RunFolder, steps: list[Step], **changes: Any) -> Any:
    options = dataclasses.replace(OPTIONS, **changes)
    return run_recipe(folder, Setting(), steps, create_backend("cpu"), options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Net B at S = 256, with net A that it starts from, and B at 384."""
    found = RunFolder(tmp_path_factory.mktemp("paper"))
    recipe(found, steps_to("B", 384))
    return found


def weights_of(path: Path) -> dict[str, Any]:
    with open_weights(path) as layers:
        return {layer.name: layer.blobs[0].array().copy() for layer in layers if layer.blobs}


def test_each_run_writes_a_note(folder: RunFolder) -> None:
    for name, net in (("A-256", "VGG-A-72-demo"), ("B-256", "VGG-B-72-demo")):
        done = folder.finished(name)
        assert done is not None
        assert done.note["net"] == net
        assert done.note["iterations"] == 2
        assert done.note["weights_sha256"] == file_sha256(done.weights)
        assert done.model.is_file()
    assert folder.finished("B-256-512") is None
    assert read_setting(folder.root) == Setting("demo")


def test_a_deeper_net_starts_from_the_layers_of_net_a(folder: RunFolder) -> None:
    solver = folder.run("B-256") / "solver.prototxt"
    a = folder.finished("A-256")
    assert a is not None
    assert list(text.read_solver(solver).weights) == [a.weights.as_posix()]
    layers = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
    assert read_sidecar(solver).weights_layers == layers
    b = folder.finished("B-256")
    assert b is not None
    first, second = weights_of(a.weights), weights_of(b.weights)
    for name in layers:
        # Two iterations move weights a little; independent draws would not be alike at all.
        alike = np.corrcoef(first[name].ravel(), second[name].ravel())[0, 1]
        assert alike > 0.5, name


def test_fine_tuning_takes_all_layers_and_a_tenth_of_the_rate(folder: RunFolder) -> None:
    solver = folder.run("B-384") / "solver.prototxt"
    param, b = text.read_solver(solver), folder.finished("B-256")
    assert b is not None
    assert list(param.weights) == [b.weights.as_posix()]
    assert read_sidecar(solver).weights_layers == ()
    base = text.read_solver(folder.run("B-256") / "solver.prototxt").base_lr
    assert param.base_lr == pytest.approx(base / 10)
    assert read_sidecar(solver).train.short_side == 88


def test_finished_runs_are_skipped(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "train", lambda *a: pytest.fail("trained again"))
    assert [done.name for done in recipe(folder, steps_to("B", 384))] == ["A-256", "B-256", "B-384"]


def test_other_settings_do_not_mix_with_a_run(folder: RunFolder) -> None:
    with pytest.raises(TrainingError, match=r"A-256: contains a run with another spec; expected"):
        recipe(folder, steps_to("A", 256), max_iter=3)
    with pytest.raises(DataError, match="runs on the data of 'demo' with seed 0; expected '/els"):
        Setting("/elsewhere").write(folder.root)
    with pytest.raises(DataError, match="'demo' with seed 0; expected 'demo' with seed 1"):
        Setting(seed=1).write(folder.root)


def test_a_stopped_run_is_resumed(folder: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "copy")
    copy.root.mkdir()
    shutil.copytree(folder.data, copy.data)
    step = steps_to("A-LRN", 256)
    real = driver.train

    def interrupted(job: Any, open_backend: Any) -> Any:
        return dataclasses.replace(real(job, open_backend), stopped=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "train", interrupted)
        with pytest.raises(TrainingError, match="A-LRN-256: stopped at iteration 2 by a signal"):
            recipe(copy, step)
    assert copy.finished("A-LRN-256") is None
    done = recipe(copy, step)[0]
    assert done.note["iterations"] == 2
    done.weights.unlink()
    with pytest.raises(SnapshotError, match=r"the run is finished, but .* is missing"):
        copy.finished("A-LRN-256")
    (copy.run("A-LRN-256") / "run.json").write_text("{")
    with pytest.raises(TrainingError, match=r"run\.json: cannot be read"):
        copy.finished("A-LRN-256")


def test_a_step_requires_its_start(folder: RunFolder) -> None:
    with pytest.raises(TrainingError, match="C-384: starts from C-256, which is not finished"):
        recipe(folder, [Step("C", 384, "C-256")])


def test_a_table_measures_finished_runs_and_lists_missing_ones(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", "--run", str(folder.root), "--table", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["rows"]
    assert found[0]["row"] == "B/256/224,256,288 (dense)"
    member = found[0]["measured"]["members"][0]
    assert member["scales"] == [64, 72, 80]
    assert "without flips" in member["protocol"]
    assert 0 <= found[0]["measured"]["top1"] <= 100
    assert [row["measured"] for row in found[1:]] == [None] * 9
    command = f"verydeep recipe --net C --scales 256-512 --data demo --out {folder.root}"
    assert found[3]["missing"] == [command]
    assert main(["paper", "--run", str(folder.root), "--table", "4"]) == 0
    shown = capsys.readouterr().out
    assert "Table 4: ConvNet performance at multiple test scales" in shown
    assert f"  {command}\n" in shown
    picture = cv2.imread(str(folder.tables / "table4.png"))
    assert picture is not None
    assert picture.std() > 5
    # The table has the error of a direct evaluation of the net.
    done = folder.finished("B-256")
    assert done is not None
    arguments = ["--model", str(done.model), "--weights", str(done.weights), "--no-flip"]
    arguments += ["--source", str(folder.val), "--scales", "64,72,80", "--no-cache", "--json"]
    assert main(["evaluate", *arguments]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert 100 * alone["top1_error"] == pytest.approx(found[0]["measured"]["top1"])


def test_the_shallow_net_is_compared_on_a_centre_crop(folder: RunFolder) -> None:
    row = TableMaker(folder, Setting(), create_backend("cpu")).table(3)[-2]
    assert row.measured is not None
    assert "1 crop per scale" in row.measured.members[0]["protocol"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nowhere", "--table", "3"], "nowhere: not a run folder: setting.json cannot be"),
        (["--run", "nowhere"], "--run nowhere: no table; expected --table"),
    ],
)
def test_errors_of_bad_input(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_experiment(folder: RunFolder) -> None:
    report = reproduce(folder, Setting(), create_backend("cpu"), OPTIONS)
    shown = report.read_text(encoding="utf-8")
    assert "missing" not in shown
    assert "not measured" not in shown
    assert shown.count("![Table") == 5
    assert shown.count("VGG-") == 15
    verdicts = json.loads((folder.tables / "claims.json").read_text())
    assert [sum(verdict["control"] == kind for verdict in verdicts) for kind in (0, 1)] == [27, 5]
    fusion = json.loads((folder.tables / "table6.json").read_text())["rows"]
    assert [len(row["measured"]["members"]) for row in fusion] == [7, 2, 2, 2]
