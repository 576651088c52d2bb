"""Scripts' idioms run as they are written; see idioms.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime.pycaffe as caffe
from data_prep.datum import from_array
from data_prep.lmdb_io import Writer
from runtime.logs.glog import close_logging
from tests.runtime.pycaffe.idioms import IDIOMS
from tests.runtime.pycaffe.more_idioms import MORE_IDIOMS

PROGRAMS = IDIOMS | MORE_IDIOMS

INPUT = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: %d dim: 3 dim: 24 dim: 24 } } }
"""
CONV = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { kernel_size: 2 stride: 2 } }
"""
FC = """
layer { name: "fc6" type: "InnerProduct" bottom: "pool1" top: "fc6"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "fc8" type: "InnerProduct" bottom: "fc6" top: "fc8"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
PROB = 'layer { name: "prob" type: "Softmax" bottom: "fc8" top: "prob" }'
DENSE = """
layer { name: "fc6-conv" type: "Convolution" bottom: "pool1" top: "fc6"
  convolution_param { num_output: 10 kernel_size: 12 } }
layer { name: "relu6" type: "ReLU" bottom: "fc6" top: "fc6" }
layer { name: "fc8-conv" type: "Convolution" bottom: "fc6" top: "fc8"
  convolution_param { num_output: 5 kernel_size: 1 } }
"""
UP = """
layer { name: "upscore" type: "Deconvolution" bottom: "pool1" top: "upscore"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 bias_term: false } }
layer { name: "score" type: "Crop" bottom: "upscore" bottom: "data" top: "score"
  crop_param { axis: 2 offset: 0 } }
"""
NORM = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
"""
DATA = """
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { scale: 0.01 } data_param { source: "images_lmdb" batch_size: 4 backend: LMDB } }
"""
LOSS = """
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc8" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc8" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""
SOLVER = """
net: "train.prototxt" lr_policy: "fixed" base_lr: 0.05 momentum: 0.9 max_iter: 6 random_seed: 3
test_iter: 1 test_interval: 100 snapshot_prefix: "own" snapshot_after_train: false
"""
MEMORY = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 } }
"""
PYTHON = """
layer { name: "source" type: "Python" top: "data" top: "label"
  python_param { module: "idiom_layers" layer: "Source"
                 param_str: "{'batch_size': 3, 'im_shape': [8, 8]}" } }
layer { name: "loss" type: "Reduction" bottom: "data" top: "loss" loss_weight: 1 }
"""
LAYERS = """
import caffe
import numpy as np


class Source(caffe.Layer):
    def setup(self, bottom, top):
        self.top_names = ["data", "label"]
        self.params = eval(self.param_str)
        self.batch_size = self.params["batch_size"]
        top[0].reshape(self.batch_size, 3, *self.params["im_shape"])
        top[1].reshape(self.batch_size, 3)

    def set_roidb(self, roidb):
        self.roidb = roidb

    def forward(self, bottom, top):
        for item in range(self.batch_size):
            top[0].data[item, ...] = np.random.rand(*top[0].data.shape[1:])
            top[1].data[item, ...] = 1

    def reshape(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        pass


class Sum(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 1:
            raise Exception("one bottom is needed")

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data.sum() / bottom[0].num

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff[0] / bottom[0].num


class Gain(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(3)
        self.blobs.add_blob(1, 2)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        if bottom[0].shape[1] != 3:
            raise ValueError("expected 3 columns")
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(axis=0)
        bottom[0].diff[...] = top[0].diff * self.blobs[0].data
"""
GAIN = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "gain" type: "Python" bottom: "data" top: "gain"
  python_param { module: "idiom_layers" layer: "Gain" } }
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nets, weights, images and a database."""
    folder = tmp_path_factory.mktemp("idioms")
    deploy = 'name: "small"' + INPUT % 2 + CONV + FC + PROB
    for name, text in (
        ("deploy.prototxt", deploy),
        ("back.prototxt", "force_backward: true " + deploy),
        ("dense.prototxt", INPUT % 1 + CONV + DENSE + PROB),
        ("fcn.prototxt", INPUT % 1 + CONV + UP),
        ("norm.prototxt", INPUT % 1 + NORM),
        ("train.prototxt", DATA + CONV + FC + LOSS),
        ("solver.prototxt", SOLVER),
        ("memory.prototxt", MEMORY),
        ("python.prototxt", PYTHON),
        ("gain.prototxt", GAIN),
        ("idiom_layers.py", LAYERS),
    ):
        (folder / name).write_text(text)
    caffe.Net(folder / "deploy.prototxt", caffe.TEST).save(folder / "weights.caffemodel")
    rng = np.random.default_rng(3)
    cv2.imwrite(str(folder / "cat.jpg"), rng.integers(0, 256, (40, 50, 3), np.uint8))
    cv2.imwrite(str(folder / "gray.png"), rng.integers(0, 256, (20, 30), np.uint8))
    mean = caffe.io.array_to_blobproto(rng.uniform(0, 255, (1, 3, 24, 24)))
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())
    with Writer(folder / "images_lmdb") as writer:
        for index in range(8):
            image = rng.integers(0, 256, (3, 24, 24), dtype=np.uint8)
            writer.put(b"%08d" % index, from_array(image, index % 4).SerializeToString())
    return folder


@pytest.fixture(autouse=True)
def caffe_name(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The name `caffe`, the folder and the environment, for one test."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(files)
    monkeypatch.syspath_prepend(files)
    caffe.install_as_caffe()
    yield
    close_logging()
    for name in [name for name in sys.modules if name.split(".")[0] in ("caffe", "idiom_layers")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", PROGRAMS)
def test_idiom(name: str) -> None:
    names = {
        "caffe": caffe,
        "np": np,
        "L": caffe.layers,
        "P": caffe.params,
        "close": np.testing.assert_allclose,
    }
    exec(compile(PROGRAMS[name], name, "exec"), names)


def test_there_are_more_than_a_hundred() -> None:
    assert len(PROGRAMS) == len(IDIOMS) + len(MORE_IDIOMS) >= 120
