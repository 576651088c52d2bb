"""`verydeep train --bundle`: the trained net as a bundle, from the prototxts of the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.bundle.bundle import Bundle
from runtime.cli.main import main
from tests.data_prep.class_folders import write_folders
from tests.runtime.job.finetune_nets import GOOGLENET, TRAIN_DATA, VGG, scored

SOLVER = """
net: "net.prototxt"
base_lr: 0.01
lr_policy: "fixed"
max_iter: 2
test_iter: 1
test_interval: 2
snapshot_prefix: "snap"
random_seed: 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_folders(tmp_path / "x", 4)
    net = TRAIN_DATA + VGG + scored("loss", "fc8")
    (tmp_path / "net.prototxt").write_text(f'name: "small"\n{net}')
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "solver.verydeep.toml").write_text("[data.test]\nshort_side = 18\n")
    (tmp_path / "labels.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundle_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--solver", "solver.prototxt", "--bundle", "m.zip", "--labels", "labels.txt"]
    assert main(words) == 0
    bundle = Bundle.load("m.zip")
    assert bundle.labels[3] == "class 3"
    assert bundle.preprocessing.describe() == "BGR, short side 18, crop 16x16, mean 100"
    assert bundle.weights.read_bytes() == Path("snap_iter_2.caffemodel").read_bytes()
    assert bundle.provenance["iterations"] == 2
    assert set(bundle.metrics) == {"loss", "loss-top1"}
    capsys.readouterr()
    assert main(["classify", "x/cat/0.jpg", "--model", "m.zip", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["predictions"][0]["label"].startswith("class ")


def test_the_main_head_of_several_is_used(folder: Path) -> None:
    (folder / "net.prototxt").write_text(f'name: "small"\n{TRAIN_DATA}{GOOGLENET}')
    assert main(["train", "--solver", "solver.prototxt", "--bundle", "m.verydeep"]) == 0
    deploy = Bundle.load("m.verydeep").model.read_text()
    assert 'bottom: "loss3/classifier"' in deploy
    assert "loss1" not in deploy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--labels", "labels.txt"), "--labels: used by --bundle only"),
        (("--bundle", "m", "--labels", "absent"), "absent: the labels cannot be read"),
        (("--bundle", "m", "--labels", "few.txt"), "few.txt: 1 labels for a net of 10 classes"),
    ],
)
def test_wrong_flags_fail_before_the_training(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("few.txt").write_text("one\n")
    assert main(["train", "--solver", "solver.prototxt", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("snap_iter_2.caffemodel").exists()
