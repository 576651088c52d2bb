"""The run that is written for TensorBoard, read back from its records."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from prototxt_gen.errors import UnsupportedError, VerydeepError
from runtime.cli.main import main
from runtime.job.tensorboard import TensorBoard, import_writer
from runtime.logs.glog import close_logging

HAS_WRITER = importlib.util.find_spec("tensorboardX") is not None
needs_writer = pytest.mark.skipif(not HAS_WRITER, reason="extra [tensorboard] is not installed")
NET = """
name: "dummy"
layer { name: "data" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "list.txt" batch_size: 8 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv1" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 display: 1
test_iter: 1 test_interval: 2 snapshot_prefix: "snap" random_seed: 1
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    rng = np.random.default_rng(0)
    with h5py.File("data.h5", "w") as file:
        file["data"] = rng.standard_normal((32, 3, 6, 6), np.float32)
        file["label"] = rng.integers(0, 3, 32).astype(np.float32)
    Path("list.txt").write_text("data.h5\n")
    yield
    close_logging()


def events(folder: Path) -> Iterator[Any]:
    """The events of a run: records of a length, a checksum, the content and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack_from("<Q", data)
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def train(folder: str, *words: str) -> int:
    return main(["train", "--solver", "solver.prototxt", "--tensorboard", folder, *words])


def values_of(folder: str, tag: str) -> list[float]:
    return [
        value.simple_value
        for event in events(Path(folder))
        for value in event.summary.value
        if value.tag == tag
    ]


@needs_writer
def test_replicas_write_one_run_with_the_same_values() -> None:
    assert train("runs/one") == 0
    assert train("runs/two", "--replicas", "2") == 0
    assert len(list(Path("runs/two").iterdir())) == 1
    for tag in ("train/loss", "norm_of_gradients/conv1_0_", "norm_of_weights/ip_0_"):
        one, two = values_of("runs/one", tag), values_of("runs/two", tag)
        assert len(one) == 4
        np.testing.assert_allclose(two, one, rtol=1e-4)


@needs_writer
def test_what_a_run_contains() -> None:
    assert train("runs/a") == 0
    scalars: dict[str, list[int]] = {}
    others, graph = set(), b""
    for event in events(Path("runs/a")):
        graph = event.graph_def or graph
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                scalars.setdefault(value.tag, []).append(event.step)
                assert np.isfinite(value.simple_value)
            else:
                others.add(value.tag)
    assert scalars["train/loss"] == [0, 1, 2, 3]
    assert scalars["train/learning_rate"] == [0, 1, 2, 3]
    assert scalars["test/accuracy"] == [0, 2, 4]
    assert scalars["norm_of_gradients/conv1_0_"] == [0, 1, 2, 3]
    assert scalars["time/images_per_second"] == [1, 2, 3]
    assert {"weights/conv1_0_", "filters_of_the_first_layer"} <= others
    from tensorboardX.proto.graph_pb2 import GraphDef

    nodes = {node.name: node for node in GraphDef.FromString(graph).node}
    assert nodes["conv1"].op == "Convolution"
    assert list(nodes["conv1"].input) == ["data"]


@needs_writer
def test_a_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    words = ["train", "--solver", "solver.prototxt", "--tensorboard", "file/a"]
    assert main(words) == 2
    assert "the TensorBoard run cannot be written" in capsys.readouterr().err
    with pytest.raises(VerydeepError):
        TensorBoard("file/b").on_solve(None)  # type: ignore[arg-type]


@pytest.mark.skipif(HAS_WRITER, reason="tensorboardX is installed")
def test_without_the_package() -> None:
    with pytest.raises(UnsupportedError, match=r"pip install 'verydeep\[tensorboard\]'"):
        import_writer()
