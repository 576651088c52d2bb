"""Every verb with output that cannot be written: full devices, closed pipes, other folders."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np
import pytest

from runtime.cli.main import main, verbs

NET = """name: "n"
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 16 }
  data_param { source: "train_lmdb" batch_size: 4 backend: LMDB } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
DEPLOY = """name: "n"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 1 dim: 3 dim: 16 dim: 16 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 2 display: 1
snapshot_prefix: "PREFIX" random_seed: 1 solver_mode: CPU
"""
MODEL = "--model deploy.prototxt --weights w.caffemodel"

# A command for each verb; OUT is what it writes. Of verbs that train for minutes the help is
# printed, and an output folder that is not writable ends them at once.
COMMANDS = {
    "caffe-tools": "caffe-tools OUT",
    "classify": f"classify i0.png {MODEL}",
    "compute_image_mean": "compute_image_mean train_lmdb OUT",
    "convert_cifar_data": "convert_cifar_data cifar OUT",
    "convert_imageset": "convert_imageset ./ list.txt OUT",
    "convert_mnist_data": "convert_mnist_data images labels OUT",
    "data": "data info train_lmdb",
    "device_query": "device_query --json",
    "draw": "draw deploy.prototxt OUT.svg",
    "evaluate": "evaluate --help",
    "export": f"export {MODEL} --to npz --out OUT",
    "extract_features": "extract_features w.caffemodel net.prototxt fc OUT 1",
    "features": "features extract --help",
    "finetune": "finetune --help",
    "fuse": "fuse --help",
    "localise": "localise train --help",
    "paper": "paper --help",
    "parse_log": "parse_log train.log OUT --verbose",
    "plan": "plan deploy.prototxt",
    "plot_log": "plot_log train.log --out OUT.png",
    "prototxt": "prototxt --net A --out OUT",
    "recipe": "recipe --help",
    "report": "report --help",
    "run": "run --help",
    "serve": "serve --help",
    "summary": "summary deploy.prototxt",
    "test": "test --model net.prototxt --weights w.caffemodel --iterations 1",
    "time": f"time {MODEL} --iterations 1",
    "train": "train --solver solver.prototxt --force",
    "upgrade": "upgrade net.prototxt OUT",
    "visualise": "visualise --help",
    "zoo": "zoo",
}
WRITERS = {
    **{verb: command for verb, command in COMMANDS.items() if "OUT" in command},
    "export to HDF5": f"export {MODEL} --to h5 --out OUT",
    "export to caffemodel": f"export {MODEL} --to caffemodel --out OUT",
    "draw PNG": "draw deploy.prototxt OUT.png",
    "components": "compute_image_mean train_lmdb --pca OUT",
    "localise": "localise train --data demo --out OUT",
    "logs": f"time {MODEL} --iterations 1 --log_dir OUT",
    "recipe": "recipe --net A --scales 256 --data demo --out OUT",
    "run": "run --max-iter 1 --out OUT",
    "train": "train --solver solver.prototxt --log_file OUT",
    "train JSON": "train --solver solver.prototxt --log_json OUT",
    "train snapshots": "train --solver out_solver.prototxt",
    "upgrade weights": "upgrade w.caffemodel OUT",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a database, nets, weights and a log."""
    folder = tmp_path_factory.mktemp("lost")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for i in range(4):
            cv2.imwrite(f"i{i}.png", np.full((20, 20, 3), 40 * i, np.uint8))
        Path("list.txt").write_text("".join(f"i{i}.png {i}\n" for i in range(4)))
        Path("net.prototxt").write_text(NET)
        Path("deploy.prototxt").write_text(DEPLOY)
        Path("solver.prototxt").write_text(SOLVER.replace("PREFIX", "s"))
        Path("images").write_bytes(struct.pack(">4I", 2051, 1, 1, 1) + b"x")
        Path("labels").write_bytes(struct.pack(">2I", 2049, 1) + b"x")
        Path("cifar").mkdir()
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            Path("cifar", name).write_bytes(bytes(3073))
        assert main(["convert_imageset", "./", "list.txt", "train_lmdb"]) == 0
        assert main(["train", "--solver", "solver.prototxt", "--log_file", "train.log"]) == 0
        Path("s_iter_2.caffemodel").rename("w.caffemodel")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the prepared folder, as the working folder."""
    copy = tmp_path / "work"
    shutil.copytree(prepared, copy)
    monkeypatch.chdir(copy)
    return copy


def run(command: str) -> int:
    """The exit status; an exception that is not handled fails the test."""
    try:
        return main(command.split())
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(params=["full device", "closed pipe"])
def lost_stream(request: pytest.FixtureRequest) -> Iterator[tuple[TextIO, bool]]:
    """A stream that cannot be written, and whether it is a full device."""
    full = request.param == "full device"
    if full:
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
    stream = open(descriptor, "w", encoding="utf-8", buffering=1)  # noqa: PTH123, SIM115
    yield stream, full
    with contextlib.suppress(OSError):
        stream.close()


def test_every_verb_has_a_command() -> None:
    assert set(COMMANDS) == set(verbs())


@pytest.mark.parametrize("verb", COMMANDS)
def test_standard_output(
    verb: str,
    lost_stream: tuple[TextIO, bool],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream, full = lost_stream
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(COMMANDS[verb]) in (1, 2)
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert ("standard output cannot be written: No space left on device" in errors) is full


@pytest.mark.parametrize("verb", COMMANDS)
def test_standard_error(
    verb: str,
    lost_stream: tuple[TextIO, bool],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Messages are lost, and the results are not."""
    command = COMMANDS[verb].replace("OUT", "out")
    expected = run(command)
    shutil.rmtree("out", ignore_errors=True)
    for path in Path.cwd().glob("out*"):
        path.unlink()
    results = capsys.readouterr().out
    monkeypatch.setattr(sys, "stderr", lost_stream[0])
    assert run(command) == expected
    if verb not in ("time", "device_query"):
        assert capsys.readouterr().out == results


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("place", ["below a file", "full device", "no space"])
def test_files(name: str, place: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = WRITERS[name]
    if place == "no space" and command.startswith(("run", "localise")):
        pytest.skip("takes seconds until it writes")
    if place == "full device" and re.search(r"OUT\.|train snapshots", f"{command} {name}"):
        pytest.skip("the name has an ending")
    out = {"below a file": "net.prototxt/out", "full device": "/dev/full", "no space": "out"}[place]
    Path("out_solver.prototxt").write_text(SOLVER.replace("PREFIX", f"{out}/s"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if place == "no space":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        status = run(command.replace("OUT", out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    lost_log = name.startswith(("train", "logs")) and place != "below a file"
    assert status in ((1, 2) if lost_log else (2,)), shown
    assert re.search(r"[Cc]annot (be|write)|exists already|is not a|ends here", shown), shown
