"""A net of two stages with random weights, and a small database of images of several sizes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from data_prep import datum as datums
from data_prep.lmdb_io import Writer
from prototxt_gen import generate, heads, proto, text, vgg
from prototxt_gen.sidecar import DataOptions
from prototxt_gen.spec import Data, Initialisation, NetSpecification, TestData, TrainData
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights.net_weights import save

CROP, STRIDE, CLASSES = 16, 4, 6
MEAN = (100.0, 110.0, 120.0)
ROWS = (("conv3-8",), ("conv3-12", "LRN"))


def toy_spec(source: str = "nowhere", lrn: bool = True) -> NetSpecification:
    """Two stages, fully connected layers of 10 and 9."""
    rows = ROWS if lrn else (ROWS[0], ROWS[1][:1])
    options = DataOptions(short_side=20)
    return NetSpecification(
        name="toy",
        stages=vgg.parse_stages(rows),
        fc=(10, 9),
        classes=CLASSES,
        crop=CROP,
        width=Fraction(1),
        init=Initialisation("xavier"),
        data=Data(
            TrainData(source, 4, options=options), TestData(source, 4, options=options), MEAN
        ),
    )


def write_net(folder: Path, source: str = "nowhere", seed: int = 0) -> Path:
    """Write the toy's prototxts and toy.caffemodel; returns the train_val prototxt."""
    spec = toy_spec(source)
    generate.write_all(spec, folder)
    net = Net(heads.deploy(spec), proto.TEST, create_backend("cpu"), RunContext())
    rng = np.random.default_rng(seed)
    for blob in net.params.learnable:
        weights = blob.data.mutable_host()
        fan_in = max(1, weights[0].size)
        weights[...] = rng.normal(0, np.sqrt(2 / fan_in), weights.shape)
    # Pixels are of the order of 100; scores of the order of 1 avoid a saturated softmax.
    net.params.learnable[0].data.mutable_host()[...] /= 60
    save(net, folder / "toy.caffemodel")
    return folder / generate.TRAIN_VAL


def deploy_scores(folder: Path, images: np.ndarray) -> np.ndarray:
    """Probabilities of the deploy net, computed directly."""
    from runtime.weights.net_weights import copy_trained_layers

    param = text.read_net(folder / generate.DEPLOY)
    del param.layer[0].input_param.shape[0].dim[:]
    param.layer[0].input_param.shape[0].dim.extend(images.shape)
    net = Net(param, proto.TEST, create_backend("cpu"), RunContext())
    copy_trained_layers(net, folder / "toy.caffemodel", strict=True)
    net.blobs["data"].data.mutable_host()[...] = images
    net.forward()
    return net.blobs["prob"].data.host().copy()


def write_images(path: Path, count: int = 11, seed: int = 3) -> Path:
    """A database of smooth colour images of three shapes, losslessly encoded."""
    rng = np.random.default_rng(seed)
    shapes = ((24, 24), (24, 32), (30, 22))
    with Writer(path) as writer:
        for index in range(count):
            height, width = shapes[index % len(shapes)]
            coarse = rng.integers(0, 256, (6, 6, 3), np.uint8)
            image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
            data = cv2.imencode(".png", image)[1].tobytes()
            datum = datums.from_encoded(data, int(rng.integers(CLASSES)))
            writer.put(f"{index:08d}".encode(), datum.SerializeToString())
    return path
