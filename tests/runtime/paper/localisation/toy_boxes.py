"""Nets of boxes of two stages with random weights, and a small data set with boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prototxt_gen import generate, proto
from prototxt_gen.localisation import PER_CLASS, LocalisationSpec, deploy, write_all
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights.net_weights import save
from runtime.weights.weights_file import open_weights
from tests.runtime.evaluate.toy_net import CLASSES, toy_spec, write_net

WEIGHTS = "boxes.caffemodel"
SHAPES = ((24, 24), (24, 32), (30, 22))


def write_box_net(folder: Path, regression: str = PER_CLASS, seed: int = 4) -> Path:
    """Write a net of boxes with weights, LRN left out; returns its train_val prototxt."""
    spec = LocalisationSpec(toy_spec(lrn=False), regression)
    write_all(spec, folder)
    net = Net(deploy(spec), proto.TEST, create_backend("cpu"), RunContext())
    rng = np.random.default_rng(seed)
    for blob in net.params.learnable:
        weights = blob.data.mutable_host()
        weights[...] = rng.normal(0, np.sqrt(2 / max(1, weights[0].size)), weights.shape)
    net.params.learnable[0].data.mutable_host()[...] /= 60
    # About half a crop, in its middle.
    net.params.learnable[-1].data.mutable_host()[...] += 0.5
    save(net, folder / WEIGHTS)
    return folder / generate.TRAIN_VAL


def write_classifier(folder: Path) -> tuple[Path, Path]:
    """A classification net of the same crop, and its weights."""
    return write_net(folder), folder / "toy.caffemodel"


def write_tree(root: Path, count: int = 7) -> Path:
    """A data set in ILSVRC's layout: `count` held-out images with one or two boxes each."""
    rng = np.random.default_rng(6)
    for folder in ("val", "bbox/val"):
        (root / folder).mkdir(parents=True)
    for label in range(CLASSES):
        (root / f"train/n{label}").mkdir(parents=True)
    lines = []
    for index in range(count):
        height, width = SHAPES[index % len(SHAPES)]
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height))
        name, label = f"v{index}", int(rng.integers(CLASSES))
        cv2.imwrite(str(root / f"val/{name}.png"), image)
        corners = [(2, 3, 14, 18), (5, 6, 20, 21)][: 1 + index % 2]
        objects = "".join(
            f"<object><name>n{label}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for x0, y0, x1, y1 in corners
        )
        (root / f"bbox/val/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
        lines.append(f"{name}.png {label}\n")
    (root / "val.txt").write_text("".join(lines))
    (root / "synset_words.txt").write_text("".join(f"n{c} class {c}\n" for c in range(CLASSES)))
    return root


def weights_of(path: Path) -> dict[str, Any]:
    """Each layer's first blob in a file of weights."""
    with open_weights(path) as layers:
        return {layer.name: layer.blobs[0].array().copy() for layer in layers if layer.blobs}
