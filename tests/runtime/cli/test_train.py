"""`verydeep train`, as a user types it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.registry import create_backend
from runtime.cli.devices import parse_gpus
from runtime.cli.main import main
from runtime.logs.glog import close_logging
from runtime.logs.reader import read_log
from runtime.solvers.run_lock import lock_run

NET = """
name: "dummy"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 64 dim: 5 } shape { dim: 64 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt"
base_lr: 0.1
lr_policy: "fixed"
max_iter: 4
display: 2
test_iter: 1
test_interval: 2
snapshot_prefix: "snap"
random_seed: 1
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_logging()


Out = pytest.CaptureFixture[str]


def test_caffes_way(folder: Path, capsys: Out) -> None:
    assert main(["train", "-solver=solver.prototxt", "-log_file", "train.log"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[:5] == [
        "iterations: 4",
        "snap_iter_4.caffemodel",
        "snap_iter_4.solverstate",
        "snap_iter_4.state.json",
        "snap.log.jsonl",
    ]
    assert "accuracy: " in out
    for words in (
        "caffe.cpp:197] Use CPU.",
        "solver.cpp:45] Initializing solver from parameters: \n",
        "caffe.cpp:239] Starting Optimization",
        "solver.cpp:239] Iteration 2 (",
        "caffe.cpp:250] Optimization Done.",
    ):
        assert words in err
    assert (folder / "train.log").read_text() == err


def test_json(capsys: Out) -> None:
    assert main(["train", "--solver", "solver.prototxt", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["iterations"] == 4 and result["files"][0] == "snap_iter_4.caffemodel"
    assert set(result["test"]) == {"accuracy", "loss"}


def test_resume_and_finetune(folder: Path, capsys: Out) -> None:
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 6"))
    assert main(["train", "--solver", "solver.prototxt", "--snapshot", "auto"]) == 0
    assert "Resuming from snap_iter_4.solverstate" in capsys.readouterr().err
    assert (folder / "snap_iter_6.caffemodel").exists()
    assert main(["train", "--solver", "solver.prototxt", "-weights", "snap_iter_4.caffemodel"]) == 0
    assert "Finetuning from snap_iter_4.caffemodel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--snapshot", "a", "--weights", "b"], "Give a snapshot to resume training or weights"),
        (["--snapshot", "none.solverstate"], "none.solverstate: the snapshot is missing"),
        (["--weights", "none.caffemodel"], "none.caffemodel"),
        (["--sigint_effect", "quit"], 'Invalid signal effect "quit" was specified'),
        (["--replicas", "2"], "its batch cannot be split over 2 replica(s) and 8 shards"),
        (["--gpu", "0,1"], "its batch cannot be split over 2 replica(s) and 8 shards"),
        (["--replicas", "0"], "--replicas: expected at least 1, got 0"),
        (["--replicas", "3", "--gpu", "0,1"], "--replicas 3 and --gpu 0,1 contradict each other"),
        (["--watchdog", "0"], "--watchdog: expected seconds, more than 0, got 0"),
        (["--gpu", "x"], "--gpu: expected a number such as 0"),
        (["--gpu", "0", "--device", "cpu"], "--device cpu and --gpu 0 contradict each other"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--keep", "0"], "--keep: expected at least 1 snapshot, got 0"),
        (["--log_file", "net.prototxt/x"], "the log cannot be written"),
        (["--log_json", "net.prototxt/x"], "the JSON log cannot be written"),
    ],
)
def test_errors_end_with_status_2(flags: list[str], message: str, capsys: Out) -> None:
    assert main(["train", "--solver", "solver.prototxt", *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("verydeep train: ") and message in error


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("solver.prototxt", "base_lr", "base_rate", "solver.prototxt:3:1"),
        ("solver.prototxt", "net.prototxt", "none.prototxt", "none.prototxt: cannot be read"),
        ("net.prototxt", "InnerProduct", "InnerProdukt", "unknown layer type 'InnerProdukt'"),
        ("net.prototxt", 'bottom: "data"', 'bottom: "date"', "unknown bottom blob 'date'"),
        ("net.prototxt", "value: 1 } } }", "value: 7 } } }", "label"),
    ],
)
def test_bad_files_end_with_status_2(
    name: str, old: str, new: str, message: str, folder: Path, capsys: Out
) -> None:
    content = (folder / name).read_text()
    assert old in content
    (folder / name).write_text(content.replace(old, new, 1))
    assert main(["train", "--solver", "solver.prototxt"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def _send(number: int, folder: Path) -> threading.Thread:
    """Send a signal to this process once training has begun."""

    def wait_and_send() -> None:
        while "Iteration 0," not in (folder / "train.log").read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    (folder / "train.log").touch()
    thread = threading.Thread(target=wait_and_send)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("number", "flags", "status"),
    [
        (signal.SIGTERM, [], 143),
        (signal.SIGTERM, ["--sigint_effect", "none", "--sighup_effect", "none"], 143),
        (signal.SIGINT, [], 130),
        (signal.SIGHUP, ["--sighup_effect", "stop"], 0),
    ],
)
def test_signals_snapshot_and_stop(
    number: int, flags: list[str], status: int, folder: Path, capsys: Out
) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 100000000"))
    thread = _send(number, folder)
    command = ["train", "--solver", "solver.prototxt", "--log_file", "train.log", "--json"]
    assert main([*command, *flags]) == status
    thread.join()
    result = json.loads(capsys.readouterr().out)
    assert result["stopped"] and len(result["files"]) == 3
    assert all(Path(name).exists() for name in result["files"])


@pytest.mark.parametrize("flag", ["--log_file", "--log_json"])
def test_a_log_on_a_full_disk_is_one_line_and_status_1(
    flag: str, folder: Path, capsys: Out
) -> None:
    assert main(["train", "--solver", "solver.prototxt", flag, "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "iterations: 4" and (folder / "snap_iter_4.caffemodel").exists()
    assert err.count("No space left on device") == 1 and "Traceback" not in err


def test_what_the_prototxt_names_is_no_file_of_another_program(folder: Path, capsys: Out) -> None:
    log = folder / "snap.log.jsonl"
    command = ["train", "--solver", "solver.prototxt"]
    for name in ("snap_iter_4.caffemodel", "snap_iter_4.state.json", "snap.log.jsonl"):
        (folder / name).write_text("somebody's")
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"{name}: exists, and" in error and "--force" in error
        assert (folder / name).read_text() == "somebody's"
        (folder / name).unlink()
    log.write_text("somebody's\n")
    assert main([*command, "--log_json", "other.jsonl"]) == 0
    assert main([*command, "--force"]) == 0
    assert log.read_text().startswith("{")
    assert Path("snap.log.jsonl.1").read_text() == "somebody's\n"
    log.unlink()
    # The own files of run after run are replaced.
    for _ in range(2):
        assert main(command) == 0
    (folder / "snap_iter_4.state.json").unlink()
    assert main(command) == 0


def test_a_solver_in_a_folder_whose_name_is_not_utf8(folder: Path, capsys: Out) -> None:
    other = folder / "n\udcff"
    other.mkdir()
    text = SOLVER.replace('snapshot_prefix: "snap"', "")
    (other / "solver.prototxt").write_text(text)
    assert main(["train", "--solver", str(other / "solver.prototxt")]) == 2
    assert "a path that is not UTF-8 cannot be written to a prototxt" in capsys.readouterr().err
    (other / "solver.prototxt").write_text(SOLVER)
    assert main(["train", "--solver", str(other / "solver.prototxt")]) == 0
    assert main(["train", "--solver", "solver.prototxt", "--weights", f"{other}/w"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_gpu_where_there_is_none_is_an_error(folder: Path, capsys: Out) -> None:
    try:
        create_backend("gpu")
    except DeviceError as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU")
    for flags, advice in (
        ("--gpu all", "to compute on the CPU, give --device cpu instead of --gpu all"),
        ("--gpu 0 --device gpu", "to compute on the CPU, give --device cpu instead of --gpu 0"),
        ("--device gpu", "to compute on the CPU, give --device cpu"),
    ):
        assert main(["train", "--solver", "solver.prototxt", *flags.split()]) == 2
        assert capsys.readouterr().err.endswith(f"{reason}; {advice}\n")
    (folder / "solver.prototxt").write_text(SOLVER + "solver_mode: GPU\n")
    assert main(["train", "--solver", "solver.prototxt"]) == 2
    advice = "the GPU was chosen by solver_mode: GPU; to compute on the CPU, give --device cpu"
    assert capsys.readouterr().err.endswith(f"{reason}; {advice}\n")
    assert main(["train", "--solver", "solver.prototxt", "--device", "cpu"]) == 0


def test_all_gpus_are_those_that_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,")
    assert parse_gpus("all") == (0, 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert parse_gpus("all") == (0,)
    assert parse_gpus("1,0") == (1, 0) and parse_gpus("") == ()


WITHOUT_END = """
layer { name: "bad" type: "Log" bottom: "ip" top: "bad" log_param { scale: 0 shift: SHIFT }
  include { phase: TEST } }
layer { name: "worse" type: "Accuracy" bottom: "bad" bottom: "label" top: "worse"
  include { phase: TEST } }
"""


@pytest.mark.parametrize("replicas", ["1", "2"])
def test_a_last_test_of_nan_scores_is_reported(folder: Path, replicas: str, capsys: Out) -> None:
    """The accuracy of NaN scores is 1, as in Caffe."""
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"], file["label"] = np.ones((64, 5), np.float32), np.ones(64, np.float32)
    (folder / "list.txt").write_text("data.h5\n")
    dummy = NET[NET.index('type: "DummyData"') : NET.index('layer { name: "ip"')]
    hdf5 = 'type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" '
    net = NET.replace(dummy, f"{hdf5} batch_size: 64 }} }}\n")
    (folder / "net.prototxt").write_text(net + WITHOUT_END.replace("SHIFT", "-1"))
    (folder / "solver.verydeep.toml").write_text("[parallel]\nshards = 2\n")
    words = ["train", "--solver", "solver.prototxt", "--json", "--threads", "1"]
    assert main([*words, "--replicas", replicas]) == 1
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["not_finite"] == ["bad"] and result["test"]["worse"] == 1
    assert result["best"] is None
    assert "Iteration 0, test net #0: not finite: bad; expected finite numbers" in err
    assert "verydeep train: not finite: bad; expected finite numbers, got NaN or infinity" in err
    assert [Path(name).exists() for name in result["files"]] == [True] * 3


def test_earlier_tests_of_nan_do_not_count(folder: Path, capsys: Out) -> None:
    (folder / "net.prototxt").write_text(NET + WITHOUT_END.replace("SHIFT", "1"))
    assert main(["train", "--solver", "solver.prototxt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["not_finite"] == []


def _starts(path: Path) -> list[int]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record["iteration"] for record in records if record["event"] == "start"]


def test_a_fresh_run_keeps_the_old_logs(folder: Path, capsys: Out) -> None:
    command = ["train", "--solver", "solver.prototxt", "--log_file", "train.log"]
    assert main(command) == 0
    old = [(folder / name).read_text() for name in ("snap.log.jsonl", "train.log")]
    assert main(command) == 0
    kept = [(folder / f"{name}.1").read_text() for name in ("snap.log.jsonl", "train.log")]
    assert kept == old
    assert _starts(folder / "snap.log.jsonl") == [0]
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 6"))
    assert main([*command, "--snapshot", "auto"]) == 0
    assert _starts(folder / "snap.log.jsonl") == [0, 4]
    assert (folder / "train.log").read_text().count("Starting Optimization") == 2
    assert main([*command, "--weights", "snap_iter_4.caffemodel"]) == 0
    assert _starts(folder / "snap.log.jsonl") == [0]
    assert _starts(folder / "snap.log.jsonl.2") == [0, 4]


def test_a_run_that_resumes_another_run_has_a_log_of_its_own(folder: Path) -> None:
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    (folder / "other").mkdir()
    text = SOLVER.replace('"snap"', '"other/snap"').replace("max_iter: 4", "max_iter: 6")
    (folder / "other.prototxt").write_text(text)
    command = ["train", "--solver", "other.prototxt", "--log_file", "train.log"]
    assert main(command) == 0
    assert main([*command, "--snapshot", "snap_iter_4.solverstate"]) == 0
    assert _starts(folder / "other" / "snap.log.jsonl") == [4]
    assert (folder / "train.log").read_text().count("Starting Optimization") == 1
    # Logs that were joined by hand are still two runs.
    for name in ("train.log", "other/snap.log.jsonl"):
        joined = (folder / f"{name}.1").read_text() + (folder / name).read_text()
        (folder / "joined").write_text(joined)
        table = read_log(folder / "joined")
        assert [row["NumIters"] for row in table.train] == [4], name
        assert table.left_out == 1


@pytest.mark.parametrize("flags", [[], ["--log_json", "b.jsonl"], ["--snapshot", "auto"]])
def test_a_second_run_with_the_prefix_is_refused(
    flags: list[str], folder: Path, capsys: Out
) -> None:
    before = sorted(folder.iterdir())
    with lock_run(folder / "snap"):
        assert main(["train", "--solver", "solver.prototxt", *flags]) == 2
        err = capsys.readouterr().err
        assert f"snap: another run (process {os.getpid()} on " in err and "snapshot_prefix" in err
    assert sorted(folder.iterdir()) == before
    assert main(["train", "--solver", "solver.prototxt", *flags]) == 0
    assert not list(folder.glob("*.lock"))


@pytest.mark.parametrize("flag", ["--log_file", "--log_json"])
def test_a_second_run_with_the_log_is_refused(flag: str, folder: Path, capsys: Out) -> None:
    with lock_run("shared.log"):
        assert main(["train", "--solver", "solver.prototxt", flag, "shared.log"]) == 2
    assert "shared.log: another run" in capsys.readouterr().err


def test_the_sidecar_is_read_and_named(folder: Path, capsys: Out) -> None:
    (folder / "nets").mkdir()
    (folder / "nets" / "s.verydeep.toml").write_text("[parallel]\nshards = 1\n")
    comment = '# verydeep sidecar: "nets/s.verydeep.toml"\n'
    (folder / "copy.prototxt").write_text(comment + SOLVER)
    assert main(["train", "--solver", "copy.prototxt"]) == 0
    assert "] Sidecar nets/s.verydeep.toml: parallel.shards = 1\n" in capsys.readouterr().err
    assert main(["upgrade", "copy.prototxt", "new.prototxt"]) == 0
    assert Path("new.prototxt").read_text().startswith(comment)
    (folder / "nets" / "s.verydeep.toml").write_text("[schedule]\nmetric = 'accuracy'\n")
    for command in (["train"], ["train", "--snapshot", "auto"]):
        assert main([*command, "--solver", "copy.prototxt"]) == 2
        err = capsys.readouterr().err
        assert "copy.prototxt:5: lr_policy is" in err and "nets/s.verydeep.toml:1 has" in err
    (folder / "nets" / "s.verydeep.toml").unlink()
    assert main(["train", "--solver", "copy.prototxt"]) == 2
    assert "copy.prototxt:1: the sidecar nets/s.verydeep.toml is missing" in capsys.readouterr().err
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    assert "Sidecar" not in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--log_file", "--log_json"])
@pytest.mark.parametrize("name", ["net.prototxt", "solver.prototxt", "w.caffemodel", "link"])
def test_a_log_does_not_replace_what_the_run_reads(
    flag: str, name: str, folder: Path, capsys: Out
) -> None:
    assert main(["train", "--solver", "solver.prototxt"]) == 0
    (folder / "snap_iter_4.caffemodel").rename(folder / "w.caffemodel")
    (folder / "link").symlink_to("net.prototxt")
    before = (folder / name).read_bytes()
    command = ["train", "--solver", "solver.prototxt", "--weights", "w.caffemodel"]
    assert main([*command, flag, name]) == 2
    assert f"{flag} {name}: is a file that the run reads" in capsys.readouterr().err
    assert (folder / name).read_bytes() == before
    assert not (folder / f"{name}.1").exists()


@pytest.mark.parametrize("other", [["--log_json", "./a.log"], []])
def test_two_logs_in_one_file_are_refused(other: list[str], folder: Path, capsys: Out) -> None:
    name = "a.log" if other else "snap.log.jsonl"
    command = ["train", "--solver", "solver.prototxt", "--log_file", name]
    assert main([*command, *other]) == 2
    assert "is a file that " in capsys.readouterr().err
    assert main(["train", "--solver", "solver.prototxt", "--log_file", "/dev/null"]) == 0
    both = ["--log_file", "/dev/null", "--log_json", "/dev/null"]
    assert main(["train", "--solver", "solver.prototxt", *both]) == 0


def test_a_run_that_does_not_start_adds_nothing_to_an_old_log(folder: Path) -> None:
    command = ["train", "--solver", "solver.prototxt", "--log_file", "train.log"]
    assert main(command) == 0
    before = (folder / "train.log").read_text()
    with lock_run(folder / "snap"):
        assert main(command) == 2
    assert main([*command, "--snapshot", "none_iter_1.solverstate"]) == 2
    assert (folder / "train.log").read_text() == before
    (folder / "solver.prototxt").write_text(SOLVER.replace("net.prototxt", "none.prototxt"))
    assert main(command) == 2
    assert (folder / "train.log.1").read_text() == before


def test_a_log_file_is_continued_if_it_records_the_snapshot(folder: Path) -> None:
    command = ["train", "--solver", "solver.prototxt", "--log_file", "train.log"]
    assert main(command) == 0
    before = (folder / "train.log").read_text()
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 4", "max_iter: 6"))
    assert main([*command, "--snapshot", "auto", "--log_json", "other.jsonl"]) == 0
    assert (folder / "train.log").read_text().startswith(before)
    assert [row["NumIters"] for row in read_log(folder / "train.log").train] == [0, 2, 4]
    assert _starts(folder / "other.jsonl") == [4]
