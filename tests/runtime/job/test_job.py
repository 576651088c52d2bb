"""The main job in miniature: every file it promises, found again by a second start."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, DeviceError
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.core.context import RunContext
from runtime.job.plan import base_spec, within_memory
from runtime.job.run import JobOptions, run_job
from runtime.net import Net
from runtime.solvers.run_lock import lock_run
from runtime.weights.net_weights import copy_trained_layers
from runtime.weights.solverstate import read_solverstate

IMAGES = (40, 20)
ITERATIONS = 3


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    options = JobOptions(out=folder, max_iter=ITERATIONS, demo_images=IMAGES)
    run_job(options, create_backend("cpu"))
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    return found


def test_the_result_records_the_options(result: dict[str, Any]) -> None:
    assert result["net"] == "VGG-A-demo"
    assert result["iterations"] == ITERATIONS
    assert 0 <= result["top5_error"] <= result["top1_error"] <= 1
    assert result["held_out_images"] == IMAGES[1]
    assert result["seconds"] > 0


def test_every_file_is_there(result: dict[str, Any]) -> None:
    for key in ("caffemodel", "deploy", "solverstate", "log", "synset_words", "caffemodel_h5"):
        assert Path(result[key]).stat().st_size > 0, key
    for key in ("learning_curve", "predictions", "confusion"):
        picture = cv2.imread(result[key])
        assert picture is not None, key
        assert picture.std() > 5, key
    assert read_solverstate(result["solverstate"]).iter == ITERATIONS


def test_the_errors_of_the_classes_add_up_to_the_result(result: dict[str, Any]) -> None:
    with Path(result["class_errors"]).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(Path(result["synset_words"]).read_text().splitlines())
    images = [int(row["images"]) for row in rows]
    wrong = [
        float(row["top-1 error, %"]) / 100 * count for row, count in zip(rows, images) if count
    ]
    assert sum(images) == result["held_out_images"]
    assert sum(wrong) / sum(images) == pytest.approx(result["top1_error"], abs=1e-4)


def test_the_exported_net_runs_and_both_forms_agree(result: dict[str, Any]) -> None:
    outputs = []
    for key in ("caffemodel", "caffemodel_h5"):
        net = Net(text.read_net(result["deploy"]), proto.TEST, create_backend("cpu"), RunContext())
        copy_trained_layers(net, result[key], strict=True)
        shape = net.blobs["data"].shape
        image = np.random.default_rng(0).uniform(-100, 100, shape)
        net.blobs["data"].data.mutable_host()[...] = image
        net.forward()
        outputs.append(net.blobs["prob"].data.host().copy())
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0].sum(axis=1), 1, rtol=1e-5)


def test_the_log_has_the_tests_scores(result: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in Path(result["log"]).read_text().splitlines()]
    tops = [row["outputs"]["accuracy/top1"] for row in rows if "accuracy/top1" in str(row)]
    # The test net sees each held-out image five times: the same score as one look at each.
    assert tops[-1] == pytest.approx(1 - result["top1_error"], abs=1e-6)


def test_a_second_start_finds_everything_done(out: Path, result: dict[str, Any]) -> None:
    before = {
        p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".mdb", ".caffemodel")
    }
    options = JobOptions(out=out, max_iter=ITERATIONS, demo_images=IMAGES)
    again = json.loads(run_job(options, create_backend("cpu")).read_text())
    assert {k: again[k] for k in ("iterations", "top1_error")} == {
        k: result[k] for k in ("iterations", "top1_error")
    }
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_second_job_in_the_folder_is_refused_before_it_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.log").write_text("of the job that runs\n")
    with lock_run(tmp_path / "job"):
        before = sorted(tmp_path.rglob("*"))
        assert main(["run", "--net", "B", "--out", str(tmp_path), "--max-iter", "1"]) == 2
        assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "run.log").read_text() == "of the job that runs\n"
    error = capsys.readouterr().err
    assert f"another run (process {os.getpid()} on " in error and "another folder" in error


def test_an_incomplete_data_set_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "set" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"set: no val images; looked for"):
        run_job(JobOptions(data=str(tmp_path / "set"), out=tmp_path / "o"), create_backend("cpu"))


def test_a_missing_gpu_is_an_error_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o"
    assert main(["run", "--gpu", "0", "--out", str(out)]) == 2
    assert "verydeep run: " in capsys.readouterr().err
    assert not (out / "data").exists()


def test_a_batch_is_cut_into_passes_that_fit() -> None:
    backend, spec = create_backend("cpu"), base_spec("A", demo=True)
    whole = within_memory(spec, backend, 1 << 40)
    assert whole.solver.iter_size == 1
    small = within_memory(spec, backend, 24 << 20)
    assert small.solver.iter_size > 1
    assert small.data.train.batch_size == spec.data.train.batch_size
    with pytest.raises(DeviceError, match=r"VGG-A-demo: even one image does not fit"):
        within_memory(spec, backend, 1 << 20)


def test_two_replicas_share_the_batch(tmp_path: Path) -> None:
    options = JobOptions(out=tmp_path, max_iter=1, demo_images=IMAGES, replicas=2)
    found = json.loads(
        run_job(options, create_backend("cpu"), lambda rank: create_backend("cpu")).read_text()
    )
    assert found["iterations"] == 1
    state = json.loads(next((tmp_path / "net").glob("*.state.json")).read_text())
    assert state["shards"] == 8
