"""Appendix B in miniature: shortened, and (slow) at full size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.lmdb_io import Reader
from prototxt_gen import proto
from prototxt_gen.errors import TrainingError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.paper.features.classification import Outcome
from runtime.paper.features.demo import DemoOptions, run_demo
from runtime.paper.features.extraction import Extractor
from runtime.paper.features.feature_file import read_features

IMAGES = (60, 30)


def options(out: Path, **more: Any) -> DemoOptions:
    values: dict[str, Any] = {"max_iter": 2, "images": IMAGES, "scales": (64,), "jobs": 1}
    values["nets"] = ("A",)
    return DemoOptions(out, **(values | more))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def outcome(out: Path) -> Outcome:
    return run_demo(options(out), create_backend("cpu"))


def test_the_net_learns_0_to_4_and_the_svm_5_to_9(outcome: Outcome, out: Path) -> None:
    for name, count in (("train", 30), ("val", 15)):
        with Reader(out / "data" / f"{name}_lmdb") as reader:
            labels = {proto.Datum.FromString(reader.get(i)).label for i in range(len(reader))}
            assert (len(reader), labels) == (count, {0, 1, 2, 3, 4})
    (split,) = outcome.splits
    assert (split.train, split.test) == (30, 15)
    assert outcome.task.classes == ("five", "six", "seven", "eight", "nine")
    features = read_features(out / "A.h5")
    folders = {name.split("/")[1] for name in features.names if name.startswith("train/")}
    assert folders == {f"n{label:08d}" for label in range(5, 10)}
    assert len(features.names) == 45
    assert not features.attributes["flip"]
    assert features.attributes["net"].endswith("-digits-0-4")


def test_a_second_run_reuses_training_and_features(
    outcome: Outcome, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = create_backend("cpu")
    monkeypatch.setattr("runtime.paper.driver.train", None)
    monkeypatch.setattr("runtime.paper.features.extraction.dense_rows", None)
    assert run_demo(options(out), backend).mean == outcome.mean
    with pytest.raises(
        TrainingError, match="contains a run with another spec; expected the settings"
    ):
        run_demo(options(out, max_iter=3), backend)


def test_the_right_labels_are_asked_for(
    outcome: Outcome, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features that are the labels themselves give a recall of 1: none is mixed up on the way."""
    real = Extractor.extract

    def labelled(self: Extractor, *args: Any) -> Any:
        found = real(self, *args)
        found.values[:, :] = 0
        found.values[np.arange(len(found.names)), found.labels] = 1
        return found

    monkeypatch.setattr(Extractor, "extract", labelled)
    assert run_demo(options(out), create_backend("cpu")).mean == 1.0 > outcome.mean


@pytest.mark.slow
def test_features_of_0_to_4_separate_5_to_9(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "demo", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["mean"] >= 0.9
    assert found["splits"][0]["test"] == 500
    assert min(found["splits"][0]["classes"].values()) > 0.75
