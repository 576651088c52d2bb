"""Nets that predict boxes instead of class scores, made from classification nets.

All layers keep their names, so that they can be initialised from classification weights; only the
last one is new: `fc8-scr` predicts one box for all classes, `fc8-pcr` a box for each class. A box
is centre x, centre y, width and height, in units of the crop. A second Data layer, `box`, reads it
from a database of boxes with the same keys as that of the images. The sidecar makes the runtime
transform a box like its image. Original Caffe reads the stored numbers, which is correct if the
stored images are the crops.

With a box for each class, only the box of the true class contributes to the loss: the fixed layer
`mask` has a row for each label, by which prediction and target are multiplied.

Paper: appendix A.1.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen import generate, heads, proto
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.proto import Message
from prototxt_gen.sidecar import Sidecar, require, sidecar_path, sidecar_text
from prototxt_gen.solver import sidecar_of, solver_param, solver_text
from prototxt_gen.spec import NetSpecification, with_values
from prototxt_gen.spec_toml import to_toml
from prototxt_gen.text import to_text

PER_CLASS, SINGLE_CLASS = "pcr", "scr"
REGRESSIONS = (PER_CLASS, SINGLE_CLASS)
ALL, FC = "all", "fc"
FINE_TUNINGS = (ALL, FC)
"""The layers that are trained: all, or the fully-connected ones."""
BOX, MASK, LOSS = "box", "mask", "loss"
NUMBERS = 4
BASE_LR = 1e-3
"""The paper's initial learning rate of localisation."""
INIT_STD = 0.01
"""The standard deviation of the new layer's initial weights, as of all others in the paper."""
MASK_WEIGHTS = "mask.caffemodel"


@dataclass(frozen=True)
class LocalisationSpec:
    """A localisation net.

    `net` describes the layers, the images and the solver; `train_boxes` and `test_boxes` are the
    databases of boxes.

    Raises:
        ProtoError: a value is impossible.
    """

    net: NetSpecification
    regression: str = PER_CLASS
    fine_tune: str = ALL
    train_boxes: str = "ilsvrc12_train_box_lmdb"
    test_boxes: str = "ilsvrc12_val_box_lmdb"
    clip_gradients: float | None = None
    """Caffe's limit of the norm of all gradients. The first gradients of an untrained layer may be
    much larger than later ones."""

    def __post_init__(self) -> None:
        valid = self.regression in REGRESSIONS
        require(valid, "regression", f"one of {', '.join(REGRESSIONS)}", self.regression)
        valid = self.fine_tune in FINE_TUNINGS
        require(valid, "fine_tune", f"one of {', '.join(FINE_TUNINGS)}", self.fine_tune)
        require(bool(self.train_boxes), "train_boxes", "the path of an LMDB", self.train_boxes)
        require(bool(self.test_boxes), "test_boxes", "the path of an LMDB", self.test_boxes)
        positive = self.clip_gradients is None or self.clip_gradients > 0
        require(positive, "clip_gradients", "more than 0", self.clip_gradients)

    @property
    def last(self) -> str:
        """The name of the layer that predicts boxes: `fc8-pcr` or `fc8-scr`."""
        return f"{heads.fc_names(self.net)[-1]}-{self.regression}"

    @property
    def outputs(self) -> int:
        """The number of its outputs."""
        return NUMBERS * (self.net.classes if self.regression == PER_CLASS else 1)


def paper_settings(net: NetSpecification) -> NetSpecification:
    """Return a classification net with the learning rate and the metric of appendix A."""
    return with_values(
        net,
        {
            "solver.base_lr": BASE_LR,
            "schedule.metric": LOSS,
            "schedule.mode": "min",
        },
    )


def train_val(spec: LocalisationSpec) -> Message:
    """Return the net for training and testing, with data layers and a Euclidean loss."""
    whole = heads.train_val(spec.net)
    net = proto.NetParameter(name=whole.name)
    for layer in whole.layer:
        if layer.type == "Data":
            added = net.layer.add()
            added.CopyFrom(layer)
            # The label is an output of the box layer.
            del added.top[1:]
    for phase, source in ((proto.TRAIN, spec.train_boxes), (proto.TEST, spec.test_boxes)):
        _box_layer(net, spec, phase, source)
    removed = ("Data", "Accuracy", "SoftmaxWithLoss")
    _add_layers(net, spec, [layer for layer in whole.layer if layer.type not in removed])
    if spec.fine_tune == FC:
        _keep_convolutions(net)
    prediction, target = spec.last, BOX
    if spec.regression == PER_CLASS:
        prediction, target = _masked(net, spec)
    _add(net, "EuclideanLoss", LOSS, (prediction, target))
    return net


def deploy(spec: LocalisationSpec) -> Message:
    """Return the net that predicts boxes of crops; its output is named after its last layer."""
    whole = heads.deploy(spec.net)
    net = proto.NetParameter(name=whole.name)
    _add_layers(net, spec, [layer for layer in whole.layer if layer.type != "Softmax"])
    return net


def dense(spec: LocalisationSpec) -> Message:
    """Return the net for whole images; its output is a map with the box of every window."""
    whole = heads.dense(spec.net)
    kept = [
        layer
        for layer in whole.layer
        if layer.type != "Softmax" and not layer.pooling_param.global_pooling
    ]
    net = proto.NetParameter(name=whole.name)
    _add_layers(net, spec, kept)
    return net


def mask_net(classes: int) -> Message:
    """Return a net of the layer `mask`, from which the file of its weights is written."""
    net = proto.NetParameter(name=MASK)
    labels = _add(net, "Input", "label", ())
    labels.input_param.shape.add(dim=(1,))
    _mask_layer(net, classes)
    return net


def sidecar(spec: LocalisationSpec) -> Sidecar:
    """Return the sidecar: in both phases, boxes are transformed like their images."""
    plain = sidecar_of(spec.net)
    return dataclasses.replace(
        plain,
        train=dataclasses.replace(plain.train, boxes=BOX),
        test=dataclasses.replace(plain.test, boxes=BOX),
        weights_layers=(),
    )


def write_all(
    spec: LocalisationSpec, out_dir: str | os.PathLike[str], start: tuple[str, ...] = ()
) -> list[Path]:
    """Write the nets, the solver and its sidecar into a folder and return their paths.

    `start` contains files of initial weights: of the classification net and, with a box for each
    class, of the layer `mask`.

    Raises:
        ProtoError: the folder cannot be written.
    """
    folder = Path(out_dir)
    solver = folder / generate.SOLVER
    prefix = utf8_path(folder / spec.net.name)
    param = solver_param(spec.net, (folder / generate.TRAIN_VAL).as_posix(), prefix)
    del param.weights[:]
    param.weights.extend(map(utf8_path, start))
    if spec.clip_gradients is not None:
        param.clip_gradients = spec.clip_gradients
    texts = {
        folder / generate.TRAIN_VAL: to_text(train_val(spec)),
        folder / generate.DEPLOY: to_text(deploy(spec)),
        folder / generate.DENSE: to_text(dense(spec)),
        solver: solver_text(param, sidecar_path(solver)),
        sidecar_path(solver): sidecar_text(sidecar(spec), generate.SOLVER),
        folder / generate.SPEC: to_toml(spec.net),
    }
    for path, content in texts.items():
        atomic_write_text(path, content, ProtoError)
    return list(texts)


def _add(
    net: Message, kind: str, name: str, bottoms: tuple[str, ...], top: str | None = None
) -> Message:
    layer = net.layer.add(name=name, type=kind)
    layer.bottom.extend(bottoms)
    layer.top.append(top or name)
    return layer


def _box_layer(net: Message, spec: LocalisationSpec, phase: int, source: str) -> None:
    images = next(layer for layer in net.layer if layer.include and layer.include[0].phase == phase)
    layer = _add(net, "Data", BOX, ())
    if spec.regression == PER_CLASS:
        layer.top.append("label")
    layer.include.add(phase=phase)
    # Convert pixels to units of the crop.
    layer.transform_param.scale = 1 / spec.net.crop
    layer.data_param.source = source
    layer.data_param.batch_size = images.data_param.batch_size
    layer.data_param.backend = layer.data_param.LMDB


def _add_layers(net: Message, spec: LocalisationSpec, layers: list[Message]) -> None:
    """Copy layers; the last one is renamed and predicts boxes."""
    for layer in layers:
        net.layer.add().CopyFrom(layer)
    last = net.layer[-1]
    scores = heads.fc_names(spec.net)[-1]
    last.name = last.name.replace(scores, spec.last)
    last.top[0] = last.name
    kind = "inner_product_param" if last.type == "InnerProduct" else "convolution_param"
    param = getattr(last, kind)
    param.num_output = spec.outputs
    if param.HasField("weight_filler"):
        # Only this layer is drawn; the others come from the classification net.
        param.weight_filler.Clear()
        param.weight_filler.type, param.weight_filler.std = "gaussian", INIT_STD


def _keep_convolutions(net: Message) -> None:
    for layer in net.layer:
        if layer.type == "Convolution":
            for param in layer.param:
                param.lr_mult = param.decay_mult = 0


def _masked(net: Message, spec: LocalisationSpec) -> tuple[str, str]:
    """Multiply prediction and target by the mask of the true class; return both products.

    The target is repeated for every class before it is masked.

    Shapes: both products (N, 4 x classes).
    """
    _mask_layer(net, spec.net.classes)
    _add(net, "Flatten", "box_flat", (BOX,))
    tile = _add(net, "Tile", "box_tiled", ("box_flat",)).tile_param
    tile.axis, tile.tiles = 1, spec.net.classes
    for name, bottom in (("prediction", spec.last), ("target", "box_tiled")):
        param = _add(net, "Eltwise", name, (bottom, MASK)).eltwise_param
        param.operation = param.PROD
    return "prediction", "target"


def _mask_layer(net: Message, classes: int) -> None:
    layer = _add(net, "Embed", MASK, ("label",))
    layer.param.add(lr_mult=0, decay_mult=0)
    param = layer.embed_param
    param.num_output, param.input_dim, param.bias_term = NUMBERS * classes, classes, False
