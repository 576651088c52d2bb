"""Training steps of nets of four kinds copy inputs to the device and losses back, nothing else."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.solvers.solver import Solver
from tests.runtime.small_nets import conv, input_layer, layer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

SCALARS = 4 * 64
"""A loss, a pass number, and learning rates. Units: bytes."""
XAVIER = 'weight_filler { type: "xavier" }'


class CopyingDriver(EmulatorDriver):
    """An emulator that lists its copies between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[int] = []
        self.downloads: list[int] = []

    def upload(self, host: Any, address: int, stream: Any = None) -> None:
        self.uploads.append(host.nbytes)
        super().upload(host, address, stream)

    def download(self, address: int, host: Any, stream: Any = None) -> None:
        self.downloads.append(host.nbytes)
        super().download(address, host, stream)


def dense(name: str, bottom: str, outputs: int) -> str:
    param = f"inner_product_param {{ num_output: {outputs} {XAVIER} }}"
    return layer("InnerProduct", name, bottom, param)


def normalised(name: str, bottom: str, channels: int, kernel: int, relu: bool = True) -> str:
    pad = kernel // 2
    fields = f"pad: {pad} bias_term: false {XAVIER}"
    return (
        conv(name, bottom, channels, kernel, fields)
        + layer("BatchNorm", f"{name}/bn", name, top=name)
        + layer("Scale", f"{name}/scale", name, "scale_param { bias_term: true }", top=name)
        + (layer("ReLU", f"{name}/relu", name, top=name) if relu else "")
    )


IMAGES = input_layer(2, 3, 16, 16)
LABELS = input_layer(2, name="label")
MAPS = input_layer(2, 1, 16, 16, name="label")
LOSS = "loss_param { ignore_label: 1 }"

RESNET = (
    normalised("conv1", "data", 8, 3)
    + normalised("a1", "conv1", 8, 3)
    + normalised("a2", "a1", 8, 3, relu=False)
    + layer("Eltwise", "sum", "conv1 a2")
    + layer("ReLU", "sum/relu", "sum", top="sum")
    + layer("Pooling", "pool", "sum", "pooling_param { pool: AVE global_pooling: true }")
    + dense("fc", "pool", 4)
    + layer("SoftmaxWithLoss", "loss", "fc label")
)
GOOGLENET = (
    conv("conv1", "data", 8, 3, f"pad: 1 {XAVIER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("LRN", "norm1", "conv1", "lrn_param { local_size: 5 alpha: 0.1 }")
    + conv("one", "norm1", 4, 1, XAVIER)
    + conv("three", "norm1", 4, 3, f"pad: 1 {XAVIER}")
    + conv("five", "norm1", 4, 5, f"pad: 2 {XAVIER}")
    + layer(
        "Pooling", "proj", "norm1", "pooling_param { pool: MAX kernel_size: 3 stride: 1 pad: 1 }"
    )
    + layer("Concat", "joined", "one three five proj")
    + layer("Pooling", "pool", "joined", "pooling_param { pool: AVE kernel_size: 8 stride: 8 }")
    + layer("Dropout", "drop", "pool", top="pool")
    + dense("side", "norm1", 4)
    + layer("SoftmaxWithLoss", "loss1", "side label", "loss_weight: 0.3")
    + dense("fc", "pool", 4)
    + layer("SoftmaxWithLoss", "loss", "fc label")
)


def head(name: str, bottom: str, outputs: int) -> str:
    return (
        conv(name, bottom, outputs, 3, f"pad: 1 {XAVIER}")
        + layer("Permute", f"{name}/perm", name, PERMUTE)
        + layer("Flatten", f"{name}/flat", f"{name}/perm")
    )


PERMUTE = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
PRIOR = "prior_box_param { min_size: 4 aspect_ratio: 2 variance: 0.1 }"
SSD = (
    conv("conv1", "data", 6, 3, f"pad: 1 {XAVIER}")
    + layer("Pooling", "pool1", "conv1", "pooling_param { kernel_size: 4 stride: 4 }")
    + layer(
        "Normalize", "norm", "pool1", "norm_param { across_spatial: false channel_shared: false }"
    )
    + conv("conv2", "pool1", 6, 3, f"pad: 1 stride: 2 {XAVIER}")
    + head("loc1", "norm", 8)
    + head("loc2", "conv2", 8)
    + head("conf1", "norm", 6)
    + head("conf2", "conv2", 6)
    + layer("Concat", "loc", "loc1/flat loc2/flat")
    + layer("Concat", "conf", "conf1/flat conf2/flat")
    + layer("PriorBox", "prior1", "norm data", PRIOR)
    + layer("PriorBox", "prior2", "conv2 data", PRIOR)
    + layer("Concat", "priors", "prior1 prior2", "concat_param { axis: 2 }")
    + 'layer { name: "unread" type: "Silence" bottom: "priors" }\n'
    + layer("EuclideanLoss", "loc/loss", "loc boxes")
    + layer("Reshape", "scores", "conf", "reshape_param { shape { dim: -1 dim: 3 } }")
    + layer("SoftmaxWithLoss", "loss", "scores label")
)
SSD_INPUTS = IMAGES + input_layer(2, 160, name="boxes") + input_layer(80, name="label")
FCN = (
    conv("conv1", "data", 6, 3, f"pad: 5 {XAVIER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("Pooling", "pool1", "conv1", "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("conv2", "pool1", 6, 3, f"pad: 2 dilation: 2 {XAVIER}")
    + layer("Pooling", "pool2", "conv2", "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("score2", "pool2", 4, 1, XAVIER)
    + layer(
        "Deconvolution",
        "up2",
        "score2",
        "convolution_param { num_output: 4 kernel_size: 4 stride: 2 bias_term: false "
        + XAVIER
        + " }",
    )
    + conv("score1", "pool1", 4, 1, XAVIER)
    + layer("Crop", "cut2", "up2 score1", "crop_param { axis: 2 offset: 1 }")
    + layer("Eltwise", "fused", "score1 cut2")
    + layer(
        "Deconvolution",
        "up1",
        "fused",
        "convolution_param { num_output: 4 kernel_size: 4 stride: 2 group: 4 bias_term: false "
        + XAVIER
        + " }",
    )
    + layer("Crop", "score", "up1 data", "crop_param { axis: 2 offset: 4 }")
    + layer("SoftmaxWithLoss", "loss", "score label", LOSS)
)
NETS = {
    "ResNet": (IMAGES + LABELS, RESNET, 4),
    "GoogLeNet": (IMAGES + LABELS, GOOGLENET, 4),
    "SSD": (SSD_INPUTS, SSD, 3),
    "FCN": (IMAGES + MAPS, FCN, 4),
}


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", NETS)
def test_inputs_go_in_and_losses_come_out(name: str, kind: str) -> None:
    inputs, layers, classes = NETS[name]
    driver = CopyingDriver()
    param = text.parse(
        f'type: "{kind}" base_lr: 0.01 lr_policy: "poly" power: 1 max_iter: 20 random_seed: 4 '
        "weight_decay: 0.01 snapshot_after_train: false",
        proto.SolverParameter,
    )
    param.net_param.CopyFrom(text.parse(inputs + layers, proto.NetParameter))
    solver = Solver(param, CudaBackend(driver))
    net = solver.net
    assert not [layer.param.name for layer in net.layers if layer.host_only]
    given = [net.blobs[name] for name in net.inputs]
    rng = np.random.default_rng(1)
    for _ in range(6):
        driver.uploads.clear()
        driver.downloads.clear()
        for blob in given:
            label = blob.name == "label"
            values = rng.integers(0, classes, blob.shape) if label else rng.random(blob.shape)
            blob.data.mutable_host()[...] = values
        solver.step(1)
    sizes = sorted(4 * blob.count() for blob in given)
    large = [size for size in driver.uploads if size > SCALARS]
    assert sorted(large) == [size for size in sizes if size > SCALARS]
    assert sum(driver.uploads) - sum(large) <= SCALARS + sum(sizes) - sum(large)
    assert sum(driver.downloads) <= SCALARS
    assert len(driver.downloads) <= 2 * layers.count("Loss")
