"""What a fine-tuning starts from: the net, its weights and the preprocessing of its images."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

from data_prep.mean_file import read_mean
from prototxt_gen import text
from prototxt_gen.errors import ShapeError, SnapshotError, UnsupportedError, UsageError
from prototxt_gen.heads import DENSE_SUFFIX
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.bundle.bundle import Bundle, is_bundle
from runtime.bundle.preprocessing import BGR, Preprocessing
from runtime.bundle.recognise import recognise_file
from runtime.job.finetune_net import FinetuneNet, learnt_shapes, net_of_weights
from runtime.weights.weights_file import open_weights

log = logging.getLogger("verydeep.job")

_SHOWN = 5


@dataclass(frozen=True)
class Start:
    """The net and the weights that a fine-tuning starts from, and how its images are prepared."""

    model: Message
    weights: Path
    preprocessing: Preprocessing | None
    """Without the crop, which the net decides; None if nothing is known."""
    origin: str
    """Where the preprocessing comes from, for the log."""
    licence: str = ""
    bundle: Bundle | None = None
    """The bundle of the weights, whose files exist as long as it."""


def starting_point(given: Path, path: Path | None) -> Start:
    """Find the net, the weights and their preprocessing.

    `given` is a file of weights or a bundle; `path` is the net's prototxt, None for the net in it.

    The preprocessing is that of the bundle, of the net's transform_param, or of the public model
    that has these layers.

    Raises:
        UsageError: the file of weights has no net, and none is given.
        UnsupportedError: the weights are for images in RGB or gray.
    """
    bundle = Bundle.load(given) if is_bundle(given) else None
    weights = bundle.weights if bundle is not None else given
    path = path or (bundle.model if bundle is not None else None)
    model = text.read_net(path) if path is not None else net_of_weights(weights)
    if model is None:
        raise UsageError(
            f"{weights}: has weights without a net; expected the net's prototxt; give it by --model"
        )
    recognised = recognise_file(weights, str(model.name))
    if recognised is not None:
        log.info("%s: %s", given, recognised.describe())
    if bundle is not None:
        if bundle.preprocessing.channel_order != BGR:
            raise UnsupportedError(
                f"{given}: images in {bundle.preprocessing.channel_order}; expected BGR, "
                "which data layers read; convert the first layer's weights"
            )
        origin = "from the bundle"
        return Start(model, weights, bundle.preprocessing, origin, bundle.licence, bundle)
    licence = recognised.model.licence if recognised is not None else ""
    own = _own_preprocessing(model)
    if own is not None:
        return Start(model, weights, own, "from the net's transform_param", licence)
    if recognised is not None:
        published = recognised.model.preprocessing
        origin = f"published for {recognised.model.name}"
        return Start(model, weights, published, origin, licence)
    return Start(model, weights, None, "mean of the training images", licence)


def check_weights(weights: Path, nets: FinetuneNet, backend: Backend) -> None:
    """Refuse weights of another net: every layer but the new classifiers must be in the file.

    Raises:
        SnapshotError: layers are missing.
        ShapeError: a layer has another shape.
    """
    shapes = learnt_shapes(nets.deploy, backend)
    expected = {name: sizes for name, sizes in shapes.items() if name not in nets.replaced.values()}
    with open_weights(weights) as layers:
        present = {str(layer.name): layer.blobs for layer in layers if layer.blobs}
    missing = [
        name
        for name in expected
        if name not in present and name.removesuffix(DENSE_SUFFIX) not in present
    ]
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise SnapshotError(
            f"{weights}: no weights for {len(missing)} of the net's {len(expected)} layers "
            f"({shown}); expected weights of this net; its layers are "
            f"{', '.join(list(present)[:_SHOWN])}, ...; give the net of these weights by --model"
        )
    for name, sizes in expected.items():
        blobs = present.get(name, {})
        for index, size in enumerate(sizes):
            # The weights of a fully connected layer may become those of a convolution.
            if index in blobs and blobs[index].count != math.prod(size):
                raise ShapeError(
                    f"{weights}: layer '{name}', blob {index}: expected shape {size}, as the net "
                    f"has, got {blobs[index].shape}; give the net of these weights by --model"
                )


def _own_preprocessing(model: Message) -> Preprocessing | None:
    """The mean and the scale of a net's transform_param; None without a mean."""
    for layer in model.layer:
        param = layer.transform_param
        mean = tuple(float(value) for value in param.mean_value)
        if param.mean_file:
            mean = tuple(float(value) for value in read_mean(param.mean_file).mean(axis=(1, 2)))
        if mean:
            side = int(param.crop_size) or 1
            return Preprocessing((side, side), None, None, mean, float(param.scale))
    return None
