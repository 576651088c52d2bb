"""The verb `localise`: short training, measuring, and missing runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import pytest

from prototxt_gen.errors import ProtoError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.paper.driver import RecipeOptions, run_recipe
from runtime.paper.localisation.published import BoxRun, rows, runs
from runtime.paper.localisation.training import BoxTraining, train_boxes
from runtime.paper.recipe import steps_to
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting
from tests.runtime.paper.localisation.toy_boxes import write_tree


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded data set with net A of two iterations, and boxes of two iterations more."""
    path = tmp_path_factory.mktemp("out")
    options = RecipeOptions(1, 2, (40, 10))
    run_recipe(RunFolder(path), Setting(), steps_to("A", 256), create_backend("cpu"), options)
    return path


def train(out: Path) -> None:
    """Train on the existing data; the verb would prepare the whole data set."""
    weights = next((out / "runs/A-256").glob("*.caffemodel"))
    options = BoxTraining(RecipeOptions(1, 2, (40, 10)), weights)
    chosen = [BoxRun("A", 384), BoxRun("A", 256)]
    train_boxes(RunFolder(out), Setting(), chosen, create_backend("cpu"), options)


def test_missing_runs_are_listed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localise", "evaluate", "--table", "8", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "Missing runs. Each command trains one run and all runs that it starts from:" in shown
    assert (
        "verydeep localise train --net A --scale 384 --regression scr --fine-tune fc --data demo "
        f"--out {out}"
    ) in shown
    assert "36.4" in shown
    assert "Measured with" not in shown


def test_tables_8_and_9(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(out)
    assert main(["localise", "evaluate", "--out", str(out), "--json"]) == 0
    eight, nine = json.loads(capsys.readouterr().out)
    assert (eight["table"], nine["table"]) == (8, 9)
    assert [row["paper"]["val"] for row in eight["rows"]] == [36.4, 34.3, 33.1, None]
    assert [row["paper"]["val"] for row in nine["rows"]] == [29.5, 28.2, 27.5, 26.9]
    assert [row["paper"]["test"] for row in nine["rows"]] == [None, 26.7, None, 25.3]
    measured = [row["measured"] for row in eight["rows"]]
    assert [list(each) for each in measured] == [[], [], ["central crop"], []]
    central = measured[2]["central crop"]
    assert 0 <= central["error"] <= 100
    assert central["protocol"] == (
        "one central crop of 64x64, Q = 88, the box of the true class; right above an intersection "
        "over union of 0.5 with any box of the class"
    )
    (member,) = central["members"]
    assert member["scales"] == [88]
    assert member["images"] == 10
    assert len(member["weights_sha256"]) == len(member["classifier_sha256"]) == 64
    assert member["net"] == "VGG-A-88-demo-pcr-all"
    assert [sorted(row["measured"]) for row in nine["rows"]] == [["crops", "dense"]] * 4
    assert [row["scales_here"] for row in nine["rows"]] == [
        "72/72",
        "88/88",
        "88/80,88",
        "72/72 + 88/80,88",
    ]
    assert len(nine["rows"][3]["measured"]["dense"]["members"]) == 2
    for table in (eight, nine):
        assert set(table["baselines"]) == {"centre box", "random box"}
        assert all(0 <= error <= 100 for error in table["baselines"].values())
    for number in (8, 9):
        written = json.loads((out / f"tables/table{number}.json").read_text())
        assert written == (eight, nine)[number - 8]
        picture = cv2.imread(str(out / f"tables/table{number}.png"))
        assert picture.shape[1] > 800


def test_the_text_lists_everything_an_error_depends_on(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(out)
    assert main(["localise", "evaluate", "--out", str(out), "--table", "9", "--images", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Table 9: Top-5 localisation error of dense application with")
    for words in (
        "here, dense",
        "here, crops",
        "centre box",
        "random box",
        "images: 4; classes: the 5 most likely by dense posteriors of ",
        "merged up to a distance of 0.5, rated by the windows' class posteriors",
        "crops: the boxes of a 3x3 grid, of 5 guessed classes",
        "weights sha256 ",
    ):
        assert words in shown, words


def test_a_folder_that_is_not_a_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["localise", "evaluate", "--out", str(tmp_path)]) == 2
    assert f"verydeep localise: {tmp_path}: not a run folder: " in capsys.readouterr().err


def test_missing_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, runs_folder = tmp_path / "none.caffemodel", tmp_path / "runs"
    command = ["localise", "train", "--scale", "256", "--out", str(runs_folder)]
    assert main([*command, "--weights", str(missing)]) == 2
    assert capsys.readouterr().err.endswith(
        f"verydeep localise: {missing}: the weights cannot be read: No such file or directory; "
        "expected a file of weights; check the path\n"
    )
    assert not runs_folder.exists()


def test_a_data_set_without_boxes_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, runs_folder = write_tree(tmp_path / "set"), tmp_path / "runs"
    for folder in (root / "train").iterdir():
        shutil.copy(root / "val/v0.png", folder)
    assert main(["localise", "train", "--data", str(root), "--out", str(runs_folder)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(
        f"verydeep localise: {root}: no bounding boxes of train; looked for {root}/bbox/train"
    )
    assert message.endswith("; unpack the bounding-box archive there")
    assert not runs_folder.exists()


def test_the_rows_are_the_papers() -> None:
    assert [row.name for row in rows(8)] == [
        "1st and 2nd FC, SCR",
        "1st and 2nd FC, PCR",
        "all layers, PCR",
        "all layers, SCR",
    ]
    assert [row.name for row in rows(9)] == [
        "256/256",
        "384/384",
        "384/352,384",
        "256/256 + 384/352,384",
    ]
    assert [run.name for run in runs()] == [
        "D-384-scr-fc",
        "D-384-pcr-fc",
        "D-384-pcr-all",
        "D-384-scr-all",
        "D-256-pcr-all",
    ]
    with pytest.raises(ProtoError) as caught:
        rows(7)
    assert str(caught.value) == (
        "table: expected one of 8, 9, got 7; the other tables are printed by `verydeep paper` and "
        "`verydeep summary --paper`"
    )
    with pytest.raises(ProtoError) as caught:
        BoxRun("D", 512)
    assert str(caught.value) == (
        "--scale: expected one of 256, 384, got 512; the paper trains no other localisation nets"
    )
