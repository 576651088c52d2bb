"""Scripts with the names of Caffe's programs, and scripts of Caffe that call them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.lmdb_io import Reader
from data_prep.mean_file import read_mean
from runtime.cli import caffe_programs
from runtime.cli.main import main

ROOT = Path(__file__).resolve().parents[3]
_NAMES = (
    *("caffe", "convert_imageset", "compute_image_mean", "convert_cifar_data"),
    *("convert_mnist_data", "extract_features"),
    *("upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text"),
)
NAMES = tuple(name + end for name in _NAMES for end in ("", ".bin"))

# In the manner of Caffe's examples: programs in build/tools, gflags with two dashes, glog's
# variables before the command, paths with slashes at the end.
CREATE = """#!/usr/bin/env sh
set -e
EXAMPLE=examples/small
TOOLS=build/tools
RESIZE=true
if $RESIZE; then
  RESIZE_HEIGHT=8
  RESIZE_WIDTH=8
fi
GLOG_logtostderr=1 $TOOLS/convert_imageset \\
    --resize_height=$RESIZE_HEIGHT \\
    --resize_width=$RESIZE_WIDTH \\
    --shuffle \\
    images/ \\
    list.txt \\
    $EXAMPLE/train_lmdb
$TOOLS/compute_image_mean $EXAMPLE/train_lmdb \\
  $EXAMPLE/mean.binaryproto
echo "Done."
"""
TRAIN = """#!/usr/bin/env sh
set -e
./build/tools/caffe train --solver=examples/small/solver.prototxt $@
"""
OLD_SOLVER = """net: "examples/small/net.prototxt"
base_lr: 0.01 lr_policy: "fixed" max_iter: 2 display: 1 snapshot_prefix: "examples/small/s"
solver_type: NESTEROV solver_mode: CPU random_seed: 3
"""
OLD_NET = """name: "old"
layers { name: "data" type: DATA top: "data" top: "label"
  data_param { source: "examples/small/train_lmdb" batch_size: 2 backend: LMDB } }
layers { name: "fc" type: INNER_PRODUCT bottom: "data" top: "fc"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like Caffe's, with images, a net and a solver of an older form, and the programs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    example = tmp_path / "examples" / "small"
    example.mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(f"images/{i}.png", np.full((10, 12, 3), 50 * i, np.uint8))
    Path("list.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(4)))
    Path("create.sh").write_text(CREATE)
    Path("train.sh").write_text(TRAIN)
    (example / "old_solver.prototxt").write_text(OLD_SOLVER)
    (example / "old_net.prototxt").write_text(OLD_NET)
    assert main(["caffe-tools", "build/tools"]) == 0
    return tmp_path


def shell(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


def test_the_programs_are_executable(tree: Path) -> None:
    folder = tree / "build" / "tools"
    assert {path.name for path in folder.iterdir()} == set(NAMES)
    assert set(caffe_programs.PROGRAMS) == set(NAMES)
    for path in folder.iterdir():
        assert path.stat().st_mode & stat.S_IXUSR
        assert path.read_text().startswith("#!/bin/sh\n")
        compile(path.read_text(), str(path), "exec")
    assert main(["caffe-tools", "build/tools"]) == 0  # its own scripts may be replaced


def test_a_script_runs_by_its_own_name(tree: Path) -> None:
    done = shell(str(tree / "build" / "tools" / "caffe"), "train", "--solvr=x")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: verydeep train")
    assert "did you mean --solver?" in done.stderr


@pytest.mark.slow
def test_scripts_as_caffe_has_them(tree: Path) -> None:
    example = tree / "examples" / "small"
    tools = tree / "build" / "tools"
    done = shell("sh", "create.sh")
    assert done.returncode == 0 and done.stdout.endswith("Done.\n"), done.stderr
    with Reader(example / "train_lmdb") as reader:
        assert len(reader) == 4
    assert read_mean(example / "mean.binaryproto").shape == (3, 8, 8)
    for kind, program in (
        ("net", "upgrade_net_proto_text"),
        ("solver", "upgrade_solver_proto_text"),
    ):
        done = shell(
            str(tools / program), f"{example}/old_{kind}.prototxt", f"{example}/{kind}.prototxt"
        )
        assert done.returncode == 0, done.stderr
    done = shell("sh", "train.sh", "-log_dir=logs", "--sighup_effect=none")
    assert done.returncode == 0, done.stderr
    assert (tree / "logs" / "caffe.INFO").exists()
    weights = "examples/small/s_iter_2.caffemodel"
    features = (weights, "examples/small/net.prototxt", "fc", "features", "2", "lmdb", "CPU")
    done = shell(str(tools / "extract_features.bin"), *features)
    assert done.returncode == 0, done.stderr
    done = shell(str(tools / "upgrade_net_proto_binary"), weights, "new.caffemodel")
    assert done.returncode == 0 and Path("new.caffemodel").exists(), done.stderr


def test_the_programs_take_caffes_arguments(tree: Path) -> None:
    flags = ["--backend=lmdb", "-resize_height=8", "-resize_width=8", "--nogray", "--shuffle=false"]
    words = [*flags, "images/", "list.txt", "examples/small/train_lmdb"]
    assert caffe_programs.main("convert_imageset", words) == 0
    assert caffe_programs.main("compute_image_mean", ["examples/small/train_lmdb"]) == 0
    net = ["examples/small/old_net.prototxt", "examples/small/net.prototxt"]
    assert caffe_programs.main("upgrade_net_proto_text", net) == 0
    solver = ["examples/small/old_solver.prototxt", "solver.prototxt"]
    assert caffe_programs.main("upgrade_solver_proto_text", solver) == 0
    assert caffe_programs.main("caffe", ["--solver=solver.prototxt", "train"]) == 0
    assert caffe_programs.main("caffe", ["time", "-model", net[1], "-iterations", "1"]) == 0
    features = ["examples/small/s_iter_2.caffemodel", net[1], "fc", "f", "1", "lmdb", "CPU"]
    assert caffe_programs.main("extract_features", [*features, "DEVICE_ID=0"]) == 0


def test_other_programs_are_not_replaced(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "build" / "tools" / "convert_imageset").write_bytes(b"\x7fELF")
    (tree / "build" / "tools" / "caffe").unlink()
    assert main(["caffe-tools", "build/tools"]) == 2
    message = "build/tools/convert_imageset: is not a script of this verb; expected one, or no file"
    assert message in capsys.readouterr().err
    assert not (tree / "build" / "tools" / "caffe").exists()
    assert main(["caffe-tools", "build/tools", "--force", "--json"]) == 0
    paths = json.loads(capsys.readouterr().out)["files"]
    assert paths == [f"build/tools/{name}" for name in NAMES]


def test_folders_that_cannot_be_written(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["caffe-tools", "list.txt"]) == 2
    assert "list.txt/caffe: cannot be replaced: Not a directory" in capsys.readouterr().err
    (tree / "build" / "tools" / "caffe").unlink()
    (tree / "build" / "tools" / "caffe").mkdir()
    assert main(["caffe-tools", "build/tools"]) == 2
    assert "build/tools/caffe: cannot be replaced: Is a directory" in capsys.readouterr().err


def test_interpreters_with_odd_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / 'it\'s a "folder"'
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(odd / "python"))
    assert main(["caffe-tools", str(tmp_path / "t")]) == 0
    done = shell(str(tmp_path / "t" / "caffe"), "--version")
    assert done.stderr == "" or done.returncode == 0 or "ModuleNotFoundError" in done.stderr
    monkeypatch.setattr(sys, "executable", "")
    assert main(["caffe-tools", str(tmp_path / "u")]) == 2
