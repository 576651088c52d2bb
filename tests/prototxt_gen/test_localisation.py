"""Localisation nets: layers that are kept, new layers, and trained layers."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import generate, heads, proto, text
from prototxt_gen.errors import ProtoError
from prototxt_gen.localisation import (
    ALL,
    FC,
    PER_CLASS,
    SINGLE_CLASS,
    LocalisationSpec,
    dense,
    deploy,
    paper_settings,
    sidecar,
    train_val,
    write_all,
)
from prototxt_gen.sidecar import read_sidecar
from prototxt_gen.spec import builtin_spec

D = builtin_spec("D")
PCR, SCR = LocalisationSpec(D), LocalisationSpec(D, SINGLE_CLASS)
KINDS = pytest.mark.parametrize("spec", [PCR, SCR], ids=["pcr", "scr"])


def layers(net: Any, kind: str) -> list[Any]:
    return [layer for layer in net.layer if layer.type == kind]


def named(net: Any, name: str) -> Any:
    return next(layer for layer in net.layer if layer.name == name)


@KINDS
def test_weight_layers_keep_their_names_but_for_the_last(spec: LocalisationSpec) -> None:
    kinds = ("Convolution", "InnerProduct")
    wanted = [layer.name for layer in heads.train_val(D).layer if layer.type in kinds]
    assert wanted[-1] == "fc8"
    assert len(wanted) == 16
    for net in (train_val(spec), deploy(spec)):
        found = [layer.name for layer in net.layer if layer.type in kinds]
        assert found == [*wanted[:-1], f"fc8-{spec.regression}"]
    assert [layer.name for layer in dense(spec).layer if layer.type in kinds] == [
        *wanted[:13],
        "fc6-conv",
        "fc7-conv",
        f"fc8-{spec.regression}-conv",
    ]


def test_the_last_layer_is_4_d_or_4000_d() -> None:
    """The paper's own numbers: A.1."""
    for spec, outputs in ((SCR, 4), (PCR, 4000)):
        assert spec.outputs == outputs
        for net in (train_val(spec), deploy(spec)):
            param = named(net, spec.last).inner_product_param
            assert param.num_output == outputs
        assert dense(spec).layer[-1].convolution_param.num_output == outputs
        filler = named(train_val(spec), spec.last).inner_product_param.weight_filler
        assert (filler.type, round(filler.std, 6)) == ("gaussian", 0.01)
        assert not named(deploy(spec), spec.last).inner_product_param.HasField("weight_filler")


@KINDS
def test_nothing_of_the_classification_is_left(spec: LocalisationSpec) -> None:
    judged = ("Softmax", "SoftmaxWithLoss", "Accuracy")
    for net in (train_val(spec), deploy(spec), dense(spec)):
        assert not [layer for layer in net.layer if layer.type in judged]
    assert [layer.name for layer in layers(train_val(spec), "EuclideanLoss")] == ["loss"]
    assert deploy(spec).layer[-1].top[0] == spec.last


@KINDS
def test_boxes_come_from_a_database_of_their_own(spec: LocalisationSpec) -> None:
    data = layers(train_val(spec), "Data")
    found = [(layer.name, layer.include[0].phase, list(layer.top)) for layer in data]
    tops = ["box", "label"] if spec.regression == PER_CLASS else ["box"]
    assert found == [
        ("data", proto.TRAIN, ["data"]),
        ("data", proto.TEST, ["data"]),
        ("box", proto.TRAIN, tops),
        ("box", proto.TEST, tops),
    ]
    images, boxes = data[:2], data[2:]
    for image, box in zip(images, boxes):
        assert box.data_param.batch_size == image.data_param.batch_size
        assert box.transform_param.scale == pytest.approx(1 / 224)
        assert box.transform_param.crop_size == 0
        assert image.transform_param.crop_size == 224
    assert [layer.data_param.source for layer in boxes] == [
        "ilsvrc12_train_box_lmdb",
        "ilsvrc12_val_box_lmdb",
    ]
    for options in (sidecar(spec).train, sidecar(spec).test):
        assert options.boxes == "box"


def test_only_the_true_class_contributes_to_the_loss() -> None:
    """Prediction and target are both multiplied by the label's row of the fixed `mask`."""
    net = train_val(PCR)
    mask = named(net, "mask")
    assert list(mask.bottom) == ["label"]
    assert [(p.lr_mult, p.decay_mult) for p in mask.param] == [(0, 0)]
    assert (mask.embed_param.input_dim, mask.embed_param.num_output) == (1000, 4000)
    assert not mask.embed_param.bias_term
    products = {layer.name: list(layer.bottom) for layer in layers(net, "Eltwise")}
    assert products == {"prediction": ["fc8-pcr", "mask"], "target": ["box_tiled", "mask"]}
    assert all(
        layer.eltwise_param.operation == layer.eltwise_param.PROD
        for layer in layers(net, "Eltwise")
    )
    tile = named(net, "box_tiled")
    assert (tile.tile_param.axis, tile.tile_param.tiles) == (1, 1000)
    assert list(named(net, "loss").bottom) == ["prediction", "target"]
    assert list(named(train_val(SCR), "loss").bottom) == ["fc8-scr", "box"]


def test_fine_tuning_all_layers_or_the_fully_connected_ones() -> None:
    for fine_tune, rates in ((ALL, [1, 2]), (FC, [0, 0])):
        net = train_val(dataclasses.replace(PCR, fine_tune=fine_tune))
        for layer in layers(net, "Convolution"):
            assert [p.lr_mult for p in layer.param] == rates, layer.name
            assert [p.decay_mult for p in layer.param] == [float(rates[0]), 0]
        for layer in layers(net, "InnerProduct"):
            assert [p.lr_mult for p in layer.param] == [1, 2], layer.name


def test_the_papers_settings() -> None:
    spec = paper_settings(D)
    assert spec.solver.base_lr == 1e-3
    assert (spec.solver.momentum, spec.solver.weight_decay) == (0.9, 5e-4)
    assert (spec.schedule.metric, spec.schedule.mode) == ("loss", "min")
    assert spec.data.train.options.short_side == 256


@KINDS
def test_files_name_each_other_and_are_the_same_every_time(
    spec: LocalisationSpec, tmp_path: Path
) -> None:
    start = ("D.caffemodel", "mask.caffemodel")
    paths = write_all(dataclasses.replace(spec, clip_gradients=3.0), tmp_path, start)
    first = {path: path.read_bytes() for path in paths}
    solver = text.read_solver(tmp_path / generate.SOLVER)
    assert Path(solver.net) == tmp_path / generate.TRAIN_VAL
    assert list(solver.weights) == list(start)
    assert solver.clip_gradients == 3.0
    assert read_sidecar(tmp_path / generate.SOLVER) == sidecar(spec)
    for name, net in (("train_val", train_val), ("deploy", deploy), ("dense", dense)):
        assert text.read_net(tmp_path / f"{name}.prototxt") == net(spec)
    write_all(dataclasses.replace(spec, clip_gradients=3.0), tmp_path, start)
    assert {path: path.read_bytes() for path in paths} == first
    write_all(spec, tmp_path)
    plain = text.read_solver(tmp_path / generate.SOLVER)
    assert not plain.HasField("clip_gradients")
    assert list(plain.weights) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"regression": "both"},
            "regression: out of range; expected one of pcr, scr, got 'both'; change the value",
        ),
        (
            {"fine_tune": "conv"},
            "fine_tune: out of range; expected one of all, fc, got 'conv'; change the value",
        ),
        (
            {"train_boxes": ""},
            "train_boxes: out of range; expected the path of an LMDB, got ''; change the value",
        ),
        (
            {"test_boxes": ""},
            "test_boxes: out of range; expected the path of an LMDB, got ''; change the value",
        ),
        (
            {"clip_gradients": 0.0},
            "clip_gradients: out of range; expected more than 0, got 0.0; change the value",
        ),
    ],
)
def test_impossible_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtoError) as caught:
        dataclasses.replace(PCR, **values)
    assert str(caught.value) == message


def test_boxes_do_not_allow_skipped_records() -> None:
    options = dataclasses.replace(D.data.train.options, boxes="box")
    with pytest.raises(ProtoError) as caught:
        dataclasses.replace(options, on_error="skip")
    assert str(caught.value) == (
        "on_error: boxes must keep their images; expected 'fatal' with boxes = 'box', got "
        "'skip'; recreate the databases without the records that cannot be used"
    )


def test_the_former_name_of_the_module() -> None:
    sys.modules.pop("prototxt_gen.localization", None)
    with pytest.warns(DeprecationWarning, match="import prototxt_gen.localisation"):
        former = importlib.import_module("prototxt_gen.localization")
    assert former is sys.modules["prototxt_gen.localisation"]
