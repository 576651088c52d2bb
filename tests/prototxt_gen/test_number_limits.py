"""Numbers of nets and solvers: finite in every field, and within the ranges that fields have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import netspec, proto, text
from prototxt_gen.errors import ProtoError
from prototxt_gen.number_limits import (
    FLOAT_MAX,
    RANGES,
    check_layer,
    check_net,
    check_solver,
    check_uniform,
)

FLOATS = ("float", "double")
OWN = ("BlobProto", "NetParameter", "LayerParameter")


def number_fields(
    descriptor: Any, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The path to each number in a message: names of fields, and the last field."""
    for field in descriptor.fields:
        if field.message_type is not None:
            if field.message_type.name not in OWN:
                yield from number_fields(field.message_type, (*names, field.name))
        elif field.enum_type is None and proto.type_name(field) not in ("string", "bool", "bytes"):
            yield (*names, field.name), field


def with_number(message: Any, names: tuple[str, ...], value: float) -> Any:
    """The message with one number in it, and what Clip also requires."""
    target = message
    for name in names[:-1]:
        field = target.DESCRIPTOR.fields_by_name[name]
        target = getattr(target, name)
        target = target.add() if proto.is_repeated(field) else target
        target.SetInParent()
    if proto.is_repeated(target.DESCRIPTOR.fields_by_name[names[-1]]):
        getattr(target, names[-1]).append(value)
    else:
        setattr(target, names[-1], value)
    return message


def fields_of(message: Any, kinds: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [
        names
        for names, field in number_fields(message.DESCRIPTOR)
        if proto.type_name(field) in kinds
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("names", fields_of(proto.LayerParameter, FLOATS), ids=".".join)
def test_no_number_of_a_layer_is_infinite_or_nan(names: tuple[str, ...], value: float) -> None:
    layer = with_number(proto.LayerParameter(name="x", type="Y"), names, value)
    path = ".".join(names)
    words = rf"layer 'x' \(Y\): {path}: not a finite number; expected at most .*, got {value}; corr"
    with pytest.raises(ProtoError, match=words):
        check_net(proto.NetParameter(layer=[layer]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("names", fields_of(proto.SolverParameter, FLOATS), ids=".".join)
def test_no_number_of_a_solver_is_infinite_or_nan(names: tuple[str, ...], value: float) -> None:
    solver = with_number(proto.SolverParameter(), names, value)
    words = rf"solver: {names[0]}: not a finite number; .* got {value}"
    with pytest.raises(ProtoError, match=words):
        check_solver(solver)


def test_there_are_many_such_fields() -> None:
    assert len(fields_of(proto.LayerParameter, FLOATS)) > 100
    assert len(fields_of(proto.SolverParameter, FLOATS)) == 13


@pytest.mark.parametrize("names", fields_of(proto.LayerParameter, ("uint32",)), ids=".".join)
def test_unsigned_numbers_fit_into_caffes_ints(names: tuple[str, ...]) -> None:
    layer = with_number(proto.LayerParameter(name="x", type="Y"), names, 2**31)
    words = (
        f"{'.'.join(names)}: out of range; expected at least 0 and at most 2147483647, got 214748"
    )
    with pytest.raises(ProtoError, match=words):
        check_layer(layer)


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, field) for kind, fields in RANGES.items() for field in fields]
)
def test_ranges_are_of_fields_that_exist_and_hold_their_defaults(kind: str, field: str) -> None:
    message = getattr(proto, kind)()
    known = message.DESCRIPTOR.fields_by_name[field]
    limits = RANGES[kind][field]
    for value in (limits.low, limits.high - (1 if limits.below else 0)):
        assert limits.holds(value) or math.isinf(value)
    assert not limits.holds(limits.low - 1)
    if not proto.is_repeated(known) and known.has_default_value:
        assert limits.holds(known.default_value)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("base_lr: -0.1", "base_lr: out of range; expected at least 0, got -0.1; correct it"),
        ("max_iter: -1", "max_iter: out of range; expected at least 0, got -1; correct it"),
        ("test_iter: [3, 0]", "test_iter: out of range; expected at least 1, got 0"),
        ("test_iter: -2", "test_iter: out of range; expected at least 1, got -2"),
        ("test_interval: -1", "test_interval: out of range; expected at least 0"),
        ("display: -20", "display: out of range; expected at least 0, got -20"),
        ("snapshot: -5", "snapshot: out of range; expected at least 0, got -5"),
        ("stepsize: -1", "stepsize: out of range; expected at least 0"),
        ("stepvalue: [1, -1]", "stepvalue: out of range; expected at least 0"),
        ("gamma: -0.1", "gamma: out of range; expected at least 0"),
        ("momentum: 1", "momentum: out of range; expected at least 0 and below 1, got 1"),
        ("momentum: -0.9", "momentum: out of range; expected at least 0 and below 1, got -0.9"),
        ("momentum2: 1", "momentum2: out of range; expected at least 0 and below 1"),
        ("rms_decay: 1.5", "rms_decay: out of range; expected at least 0 and below 1"),
        ("weight_decay: -1", "weight_decay: out of range; expected at least 0"),
        ("delta: -1e-8", "delta: out of range; expected at least 0, got -1e-08"),
        ("average_loss: 0", "average_loss: out of range; expected at least 1"),
        ("iter_size: 0", "iter_size: out of range; expected at least 1"),
        ("base_lr: 1e39", "base_lr: not a finite number; expected at most 3.4028235e.38 in magn"),
        ("power: nan", "power: not a finite number"),
        ("clip_gradients: inf", "clip_gradients: not a finite number"),
    ],
)
def test_solvers_that_cannot_be(fields: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text(fields)
    with pytest.raises(ProtoError, match=rf"{path}: solver: {complaint}"):
        text.read_solver(path)


def test_what_caffe_trains_with_is_accepted() -> None:
    solver = "base_lr: 0 momentum: 0 max_iter: 0 power: -1 clip_gradients: -1 random_seed: -7"
    check_solver(text.parse(f"{solver} device_id: -1", proto.SolverParameter))
    check_layer(
        text.parse(
            """name: "x" loss_weight: -2 param { lr_mult: -1 decay_mult: -3 }
            transform_param { scale: 0 mean_value: -5 } reduction_param { coeff: -1 axis: -3 }
            relu_param { negative_slope: -2 } power_param { power: -1 shift: -3 scale: -2 }
            convolution_param { weight_filler { type: "uniform" min: 2 max: 2 }
              bias_filler { type: "xavier" min: 5 max: -5 } }
            clip_param { min: 1 max: 1 } loss_param { ignore_label: -1 }
            threshold_param { threshold: -3.4e38 }""",
            proto.LayerParameter,
        )
    )


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        (
            'convolution_param { weight_filler { type: "uniform" min: 1 max: 0.5 } }',
            "convolution_param.weight_filler.min, max: no range for a uniform filler; expected min "
            "<= max and max - min below 3.40282.*e.38, got min 1 and max 0.5; correct them",
        ),
        (
            'scale_param { bias_filler { type: "uniform" min: -3e38 max: 3e38 } }',
            "scale_param.bias_filler.min, max: no range for a uniform filler",
        ),
        ("prelu_param { filler { std: -1 } }", "prelu_param.filler.std: out of range; expected at"),
        ("bias_param { filler { sparse: -2 } }", "bias_param.filler.sparse: out of range; expect"),
        (
            "dummy_data_param { data_filler {} data_filler { value: nan } }",
            "dummy_data_param.data_filler.value: not a finite number",
        ),
        ("accuracy_param { top_k: 0 }", "accuracy_param.top_k: out of range; expected at least 1"),
        ("batch_norm_param { eps: -1 }", "batch_norm_param.eps: out of range; expected at least 0"),
        (
            "batch_norm_param { moving_average_fraction: 1.5 }",
            "batch_norm_param.moving_average_fraction: out of range; expected at least 0 and at mo",
        ),
        ("mvn_param { eps: -1e-9 }", "mvn_param.eps: out of range"),
        ("contrastive_loss_param { margin: -1 }", "contrastive_loss_param.margin: out of range"),
        ("data_param { prefetch: 0 }", "data_param.prefetch: out of range; expected at least 1"),
        ("clip_param { min: 1 max: 0 }", "clip_param.min, max: out of order; expected min <= max"),
        ("loss_weight: 1 loss_weight: nan", "loss_weight: not a finite number; .* got nan"),
        ("param { lr_mult: inf }", "param.lr_mult: not a finite number; .* got inf"),
    ],
)
def test_layers_that_cannot_be(layer: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(f'name: "n"\nlayer {{\n  name: "x" type: "T" {layer} }}')
    with pytest.raises(ProtoError, match=rf"{path}:3:9: layer 'x' \(T\): {complaint}"):
        text.read_net(path)


def test_older_forms_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layers { name: "x" type: POWER power_param { scale: nan } }')
    with pytest.raises(ProtoError, match=r"layer 'x' \(Power\): power_param.scale: not a finite"):
        text.read_net(path)
    path.write_text('layers { layer { name: "x" type: "lrn" alpha: inf } }')
    with pytest.raises(ProtoError, match=r"layer 'x' \(LRN\): lrn_param.alpha: not a finite"):
        text.read_net(path)


def test_nets_in_a_solver_are_checked() -> None:
    net = '{ layer { name: "x" exp_param { shift: nan } } }'
    for name in ("net_param", "train_net_param", "test_net_param"):
        with pytest.raises(ProtoError, match=r"layer 'x' \(\): exp_param.shift: not a finite"):
            check_solver(text.parse(f"{name} {net}", proto.SolverParameter))


def test_weights_in_a_net_are_data() -> None:
    check_layer(text.parse("blobs { data: nan shape { dim: 1 } }", proto.LayerParameter))


def test_netspec_checks_its_layers() -> None:
    spec = netspec.NetSpec()
    spec.x = netspec.layers.InnerProduct(num_output=1, weight_filler={"std": math.nan})
    with pytest.raises(ProtoError, match=r"layer 'x' \(InnerProduct\): inner_product_param.weight"):
        spec.to_proto()


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1.0, 0.0),
        (math.nan, 1.0),
        (0.0, math.nan),
        (0.0, FLOAT_MAX),
        (-3e38, 3e38),
        (0.0, math.inf),
    ],
)
def test_bounds_of_a_uniform_filler(low: float, high: float) -> None:
    with pytest.raises(ProtoError, match="here: no range for a uniform filler"):
        check_uniform(low, high, "here")
