"""`verydeep extract_features`: every image's blobs, in order, as Caffe's tool writes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_prep import datum
from data_prep.lmdb_io import Reader
from prototxt_gen import text
from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.logs.glog import close_logging
from runtime.net import Net
from runtime.weights.net_weights import save

NET = """
layer { name: "data" type: "HDF5Data" top: "data" hdf5_data_param { source: "list.txt"
  batch_size: 2 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "InnerProduct" bottom: "conv" top: "fc7"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""
Out = pytest.CaptureFixture[str]
CALL = ["extract_features", "w.caffemodel", "net.prototxt"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    import h5py

    monkeypatch.chdir(tmp_path)
    with h5py.File("a.h5", "w") as file:
        file["data"] = np.random.default_rng(0).normal(size=(4, 1, 5, 4)).astype(np.float32)
    Path("list.txt").write_text("a.h5\n")
    Path("net.prototxt").write_text(NET)
    with Net(text.read_net("net.prototxt"), 1, create_backend("cpu")) as net:
        save(net, "w.caffemodel")
    yield tmp_path
    close_logging()


def test_blobs_of_all_batches(capsys: Out) -> None:
    assert main([*CALL, "fc7,conv", "fc7_db,conv_db", "3", "lmdb", "CPU"]) == 0
    assert capsys.readouterr().out == "fc7_db: 6 features of fc7\nconv_db: 6 features of conv\n"
    with Net(text.read_net("net.prototxt"), 1, create_backend("cpu")) as net:
        from runtime.weights.net_weights import copy_trained_layers

        copy_trained_layers(net, "w.caffemodel")
        for name, shape in (("fc7", (4, 1, 1)), ("conv", (3, 4, 3))):
            with Reader(f"{name}_db") as reader:
                keys, records = zip(*reader)
            assert keys == tuple(f"{i:010d}".encode() for i in range(6))
            messages = [datum.parse(record, name) for record in records]
            assert not any(message.HasField("label") for message in messages)
            found = np.stack([datum.to_array(message) for message in messages])
            assert found.shape == (6, *shape)
            for batch in range(3):
                net.forward()
                expected = net.blobs[name].data.host().reshape(2, *shape)
                assert np.array_equal(found[2 * batch : 2 * batch + 2], expected)
            net.forward()  # four batches are two rounds: the next begin together again


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fc7,conv", "a", "1"], "blob names and dataset names must be equal; got 2 and 1"),
        (["fc7,conv", "a,a", "1"], "expected each blob and each database once"),
        (["x", "a", "1"], "Unknown feature blob name x in the network net.prototxt; expected one"),
        (["fc7", "a", "0"], "BATCHES: expected at least 1, got 0"),
        (["fc7", "a", "1", "leveldb"], "database type 'leveldb': expected lmdb"),
        (["fc7", "a", "1", "lmdb", "TPU"], "expected CPU or GPU, got 'TPU'"),
        (["fc7", "a", "1", "lmdb", "GPU", "x"], "DEVICE_ID: expected a number such as 0, got 'x'"),
        (["fc7", "list.txt", "1"], "list.txt: exists already"),
    ],
)
def test_what_a_user_may_get_wrong(capsys: Out, args: list[str], words: str) -> None:
    assert main([*CALL, *args]) == 2
    error = capsys.readouterr().err
    assert words in error and "--resume" not in error
    assert not Path("a").exists()


def test_weights_that_lack_a_layer_are_refused(capsys: Out) -> None:
    Path("net.prototxt").write_text(NET.replace('name: "sum"', 'name: "other"'))
    assert main([*CALL, "fc7", "db", "1"]) == 2
    assert "w.caffemodel: no weights for 1 of the net's layers (other)" in capsys.readouterr().err
    assert not Path("db").exists()
    assert main([*CALL, "fc7", "db", "1", "--allow-missing"]) == 0


def test_without_a_gpu_the_message_names_the_cpu(
    capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert main([*CALL, "fc7", "fc7_db", "1", "lmdb", "GPU"]) == 2
    assert "; to compute on the CPU, give CPU instead of GPU\n" in capsys.readouterr().err
