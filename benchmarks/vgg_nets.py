"""Nets of the paper for benchmarks, without a database, with weights of He's variance."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen import heads, proto, text
from prototxt_gen.spec import NetSpecification, builtin_spec, with_values
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights import net_weights

NARROW = {"width": Fraction(1, 8), "classes": 10}
NARROW_CROP = 64


def fed(net: Any, batch: int, crop: int) -> Any:
    """The net with Input layers in place of the layers that read a database."""
    for layer in [item for item in net.layer if item.type in ("Data", "Accuracy", "Input")]:
        net.layer.remove(layer)
    images = proto.LayerParameter(name="data", type="Input", top=["data"])
    images.input_param.shape.add(dim=[batch, heads.CHANNELS, crop, crop])
    layers = [images]
    if any("label" in item.bottom for item in net.layer):
        labels = proto.LayerParameter(name="label", type="Input", top=["label"])
        labels.input_param.shape.add(dim=[batch])
        layers.append(labels)
    layers += list(net.layer)
    del net.layer[:]
    net.layer.extend(layers)
    return net


def fill(net: Net, classes: int) -> None:
    """Fill weights such that activations stay in range, images and labels."""
    random = np.random.default_rng(0)
    for blob in net.params.learnable:
        if blob.num_axes > 1:
            fan_in = blob.count() // blob.shape[0]
            values = random.standard_normal(blob.shape, np.float32) * (2 / fan_in) ** 0.5
            blob.data.mutable_host()[...] = values
    images = net.blobs["data"]
    images.data.mutable_host()[...] = random.standard_normal(images.shape, np.float32)
    if "label" in net.blobs:
        labels = net.blobs["label"]
        labels.data.mutable_host()[...] = random.integers(0, classes, labels.shape)


def specification(name: str) -> NetSpecification:
    """The spec of a net such as `D`, or `D/8` for an eighth of its width on small images."""
    if name.endswith("/8"):
        return with_values(builtin_spec(name[:-2], NARROW_CROP), NARROW)
    return builtin_spec(name)


def write_net(name: str, folder: Path) -> None:
    """Write the deploy net <name>.prototxt, and <name>.caffemodel, for other programs."""
    spec = specification(name)
    param = heads.deploy(spec)
    text.write(folder / f"{name}.prototxt", param)
    with Net(param, proto.TEST, CpuBackend(), RunContext(fill_weights=False)) as net:
        fill(net, spec.classes)
        net_weights.save(net, folder / f"{name}.caffemodel")
