"""Nets: reading, building, running for a few passes, writing."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np

from data_prep import datum as datums
from data_prep.mean_file import write_mean
from prototxt_gen import proto, text
from prototxt_gen.downgrade import downgrade_v1
from prototxt_gen.draw import net_to_dot
from prototxt_gen.errors import UnsupportedError
from runtime.analysis.summary import summarize
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from runtime.net.shape_net import shape_net
from runtime.weights.net_file import open_net
from tests.conformance import layer_cases_loss, layer_cases_pointwise, layer_cases_spatial
from tests.conformance.layer_case import Case as LayerCase
from tests.mutants.case import Case, Format
from tests.mutants.message_damage import message_damage

MOST_VALUES = 1 << 20
MOST_PRODUCTS = 1 << 25
"""Nets above either limit are built only for their shapes, because they need long computations."""
_TYPES = (
    "AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss "
    "Convolution Crop Data Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp "
    "Filter Flatten HDF5Data HingeLoss Im2col ImageData InfogainLoss InnerProduct Input Log LRN "
    "LSTM MemoryData MultinomialLogisticLoss MVN Parameter Pooling Power PReLU Python Recurrent "
    "Reduction ReLU Reshape RNN Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax "
    "SoftmaxWithLoss Split SPP Swish TanH Threshold Tile WindowData"
)
_FILLERS = ("constant", "uniform", "gaussian", "xavier", "msra", "positive_unitball", "bilinear")
_WORDS = (
    "TRAIN", "TEST", "MAX", "AVE", "STOCHASTIC", "SUM", "PROD", "CAFFE", "CUDNN", "FAN_OUT",
    "AVERAGE", "WITHIN_CHANNEL", "L1", "L2", "true", "false", "FULL", "VALID", "LEVELDB", "HDF5",
    "layer { }", "layers { }", "param { name: 'w' lr_mult: 0 }", "include { phase: TRAIN }",
    "loss_weight: 1", "propagate_down: true", "top: 'x'", "bottom: 'b0'", "axis: -1", "axis: 4",
    "num_output: 0", "kernel_size: 0", "stride: 0", "dim: 0", "dim: -1", "group: 2", "pad: 1",
    "kernel_h: 2", "dilation: 3", "crop_size: 3", "scale: nan", "engine: CUDNN", "batch_size: 0",
    "phase: TEST", "shape { }", "shape { dim: 2 dim: 0 }", "bias_term: false", "name: 'x'",
)  # fmt: skip
_NET_WORDS = (
    *(f'"{word}"'.encode() for word in (*_TYPES.split(), *_FILLERS)),
    *(word.encode() for word in _WORDS),
)

V0 = """name: "v0" input: "data" input_dim: [1, 3, 9, 9]
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" num_output: 4 kernelsize: 3 stride: 2 group: 1
    weight_filler { type: "xavier" } bias_filler { value: 1 } blobs_lr: 1 blobs_lr: 2 }
  bottom: "pad1" top: "conv1" }
layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
layers { layer { name: "pool1" type: "pool" kernelsize: 3 stride: 2 pool: AVE }
  bottom: "conv1" top: "pool1" }
layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 } bottom: "pool1" top: "n1" }
layers { layer { name: "ip" type: "innerproduct" num_output: 7 } bottom: "n1" top: "ip" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "ip" top: "ip" }
layers { layer { name: "prob" type: "softmax" } bottom: "ip" top: "prob" }
"""
_V1 = """name: "v1" input: "data" input: "label" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8
  input_dim: 2 input_dim: 1 input_dim: 1 input_dim: 1
layers { name: "conv1" type: CONVOLUTION bottom: "data" top: "conv1" blobs_lr: 1 blobs_lr: 2
  weight_decay: 1 weight_decay: 0 convolution_param { num_output: 4 kernel_size: 3 } }
layers { name: "relu1" type: RELU bottom: "conv1" top: "conv1" }
layers { name: "ip" type: INNER_PRODUCT bottom: "conv1" top: "ip" param: "w" param: "b"
  inner_product_param { num_output: 3 } }
layers { name: "loss" type: SOFTMAX_LOSS bottom: "ip" bottom: "label" include { phase: TRAIN } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" exclude { phase: TRAIN } }
"""
CHAIN = """name: "chain" force_backward: true
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } shape { dim: 2 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param { name: "w" lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 1 group: 1 dilation: 1
    weight_filler { type: "gaussian" std: 0.01 } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1"
  batch_norm_param { moving_average_fraction: 0.99 eps: 1e-5 } }
layer { name: "scale" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" relu_param { negative_slope: 0.1 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 pad: 0 } }
layer { name: "drop" type: "Dropout" bottom: "pool1" top: "pool1"
  dropout_param { dropout_ratio: 0.5 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool1" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  loss_param { ignore_label: -1 normalization: VALID } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc"
  accuracy_param { top_k: 2 } include { phase: TEST } }
"""
_FILLED = """name: "filled"
layer { name: "data" type: "DummyData" top: "a" top: "b" dummy_data_param {
  shape { dim: 2 dim: 4 } shape { dim: 2 dim: 4 dim: 3 dim: 3 }
  data_filler { type: "uniform" min: -1 max: 1 }
  data_filler { type: "gaussian" std: 2 sparse: 1 } } }
layer { name: "one" type: "InnerProduct" bottom: "a" top: "one" inner_product_param { num_output: 3
  weight_filler { type: "positive_unitball" }
  bias_filler { type: "msra" variance_norm: AVERAGE } } }
layer { name: "two" type: "Deconvolution" bottom: "b" top: "two" convolution_param { num_output: 4
  group: 4 kernel_size: 2 stride: 2 bias_term: false weight_filler { type: "bilinear" } axis: 1 } }
layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 2 dim: 3 } } }
layer { name: "sum" type: "Eltwise" bottom: "one" bottom: "p" top: "sum"
  eltwise_param { operation: SUM coeff: 1 coeff: -1 } }
"""
_DATA = """name: "data"
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { mirror: true crop_size: 4 mean_value: 100 mean_value: 110 mean_value: 120 }
  data_param { source: "db" batch_size: 2 backend: LMDB rand_skip: 1 prefetch: 2 } }
layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { mean_file: "mean.binaryproto" scale: 0.5 force_color: true }
  data_param { source: "db" batch_size: 3 backend: LMDB } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 2 } }
"""
_IMAGES = """name: "images"
layer { name: "d" type: "ImageData" top: "data" top: "label" transform_param { crop_size: 4 }
  image_data_param { source: "list.txt" root_folder: "./" batch_size: 2 new_height: 6 new_width: 7
    is_color: false shuffle: true rand_skip: 1 } }
layer { name: "s" type: "Silence" bottom: "label" }
"""
_HDF5 = """name: "hdf5"
layer { name: "d" type: "HDF5Data" top: "data" top: "label"
  hdf5_data_param { source: "h5.txt" batch_size: 3 shuffle: true } }
layer { name: "m" type: "MemoryData" top: "memory" top: "memory_label"
  memory_data_param { batch_size: 1 channels: 3 height: 2 width: 2 } include { stage: "never" } }
layer { name: "l" type: "EuclideanLoss" bottom: "data" bottom: "label" top: "loss" loss_weight: 2 }
"""


def leave_data() -> None:
    """Write the inputs of the sample nets: a database, images with a list, HDF5, a mean."""
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, 256, (3, 8, 9, 3), np.uint8)
    with lmdb.open("db", map_size=1 << 20) as environment, environment.begin(write=True) as records:
        for number, image in enumerate(pixels):
            record = datums.from_array(image.transpose(2, 0, 1), number % 2).SerializeToString()
            records.put(b"%08d" % number, record)
    for number, image in enumerate(pixels):
        cv2.imwrite(f"{number}.png", image)
    Path("list.txt").write_text("0.png 0\n1.png 1\n2.png 0\n")
    write_mean("mean.binaryproto", generator.uniform(0, 255, (3, 8, 9)))
    with h5py.File("data.h5", "w") as file:
        file["data"] = generator.standard_normal((4, 2)).astype(np.float32)
        file["label"] = generator.standard_normal((4, 2)).astype(np.float32)
    Path("h5.txt").write_text("data.h5\n")


def net_text(case: LayerCase) -> str:
    """The prototxt of a row of the conformance table."""
    lines = ["force_backward: true"] if case.gradients else []
    for place, shape in enumerate(case.bottoms):
        dims = " ".join(f"dim: {dim}" for dim in shape)
        lines.append(
            f'layer {{ name: "in{place}" type: "Input" top: "b{place}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    wires = "".join(f' bottom: "b{place}"' for place in range(len(case.bottoms)))
    wires += "".join(f' top: "t{place}"' for place in range(case.tops))
    return "\n".join([*lines, f'layer {{ name: "x"{wires} {case.layer} }}\n'])


@functools.cache
def backend() -> Any:
    """The backend of this process, with one thread."""
    return create_backend("cpu", threads=1)


def _context() -> RunContext:
    return RunContext(seed=3, rng=CaffeRandom(3))


def is_small(net: Net) -> bool:
    """Whether passes of a net take only milliseconds."""
    values = sum(blob.count() for blob in net.blobs.values())
    values += sum(blob.count() for blob in net.params.learnable)
    return values <= MOST_VALUES and summarize(net).multiply_adds <= MOST_PRODUCTS


def _read_net(phase: int) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        path = Path("net.prototxt")
        path.write_bytes(data)
        param = text.read_net(path)
        written = text.to_text(param)
        assert text.to_text(text.parse(written, proto.NetParameter)) == written
        net_to_dot(param)
        with shape_net(param, phase, backend(), _context()) as shapes:
            if not is_small(shapes):
                return
        with open_net(path, phase, backend(), _context()) as net:
            net.forward()
            if phase == proto.TRAIN:
                net.backward()
            net.forward()

    return read


def _upgrade_net(data: bytes) -> None:
    path = Path("net.prototxt")
    path.write_bytes(data)
    param = text.read_net(path)
    try:
        downgrade_v1(param, str(path))
    except UnsupportedError:
        return
    text.write("out.prototxt", param)


def prepare_nets() -> list[Case]:
    """Every layer of the conformance table, data layers, fillers and the older forms."""
    leave_data()
    rows = [*layer_cases_pointwise.CASES, *layer_cases_spatial.CASES, *layer_cases_loss.CASES]
    layers = tuple(net_text(row).encode() for row in rows)
    nets = tuple(net.encode() for net in (CHAIN, _FILLED, _DATA, _IMAGES, _HDF5, _V1))
    old = tuple(net.encode() for net in (V0, _V1, CHAIN))
    names = (*_TYPES.split(), *_FILLERS, "b0", "t0", "x", "data", "label")
    damage = message_damage(proto.NetParameter, names, _NET_WORDS)
    return [
        Case("layer train", layers, damage, _read_net(proto.TRAIN)),
        Case("net train", nets, damage, _read_net(proto.TRAIN)),
        Case("layer test", layers, damage, _read_net(proto.TEST)),
        Case("net test", (*nets, V0.encode()), damage, _read_net(proto.TEST)),
        Case("upgrade", old, damage, _upgrade_net),
    ]


FORMATS = (Format("net", prepare_nets, honest_memory=True),)
