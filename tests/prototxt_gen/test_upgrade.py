"""Inputs, batch normalisation and solvers brought to the current form."""

from __future__ import annotations

from pathlib import Path

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.text import parse, to_text
from prototxt_gen.upgrade import (
    SOLVER_TYPE_NAMES,
    ignored_transformations,
    set_snapshot_prefix,
    upgrade_net,
    upgrade_solver,
)
from tests.prototxt_gen.upgrading import check, refused, upgraded

NET = proto.NetParameter


def test_current_data_layers_ignore_old_fields_as_caffe_does() -> None:
    net = upgraded('layer { name: "d" type: "Data" data_param { scale: 2 crop_size: 3 } }')
    assert not net.layer[0].HasField("transform_param")
    assert ignored_transformations(net) == [
        "layer 'd': scale, crop_size in data_param has no effect, as in Caffe; write it in "
        "transform_param"
    ]
    assert ignored_transformations(upgraded('layer { type: "Data" }')) == []


def test_inputs_become_a_layer_in_front() -> None:
    check(
        'input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: "x" }',
        'layer { name: "input" type: "Input" top: "a" top: "b" input_param { '
        'shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } } layer { name: "x" }',
    )
    check(
        'input: "a" input_shape { dim: [7, 8] } input_dim: [1, 1, 1, 1]',
        'layer { name: "input" type: "Input" top: "a" input_param { shape { dim: [7, 8] } } }',
    )
    check('input: "a" layer { name: "x" }', 'layer { name: "x" }')


def test_inputs_and_shapes_that_do_not_fit() -> None:
    refused(
        'input: "a" input: "b" input_dim: [1, 2, 3, 4]',
        "n: too few input_dim for the net's inputs; expected 8 for 2 input, got 4; give each",
    )
    refused('input: "a" input: "b" input_shape { dim: 1 }', "too few input_shape .* expected 2")
    net = parse('input: "a" input_dim: [1, 2, 3, 4, 5]', NET)
    assert upgrade_net(net, "n") == [
        "input 'a' made a layer of type Input",
        "1 more input_dim belong to no input, left out",
    ]
    net = parse('input: "a" input_shape { dim: 7 } input_shape {} input_dim: [1, 2]', NET)
    assert upgrade_net(net, "n")[1:] == [
        "1 more input_shape and 2 input_dim in addition to input_shape belong to no input, left out"
    ]


def test_batch_norm_keeps_its_three_params_with_rates_of_zero() -> None:
    """Caffe's UpgradeNetBatchNorm sets lr_mult and decay_mult, and nothing else."""
    net = 'layer {{ name: "b" type: "{}" {} }}'
    zero = "lr_mult: 0 decay_mult: 0"
    check(
        net.format(
            "BatchNorm",
            'param { name: "m" lr_mult: 1 } '
            "param { share_mode: PERMISSIVE decay_mult: 2 } param {}",
        ),
        net.format(
            "BatchNorm",
            f'param {{ name: "m" {zero} }} param {{ share_mode: PERMISSIVE {zero} }} '
            f"param {{ {zero} }}",
        ),
    )
    check(
        net.format("BatchNorm", "param { lr_mult: 0 }" * 3),
        net.format("BatchNorm", f"param {{ {zero} }}" * 3),
    )
    for kind, count in (("BatchNorm", 2), ("BatchNorm", 4), ("Scale", 3)):
        text = net.format(kind, "param { lr_mult: 0 }" * count)
        check(text, text)


def test_batch_norm_logs_its_changes() -> None:
    net = parse('layer { name: "b" type: "BatchNorm" param {} param {} param {} }', NET)
    assert upgrade_net(net, "n") == [
        "layer 'b': lr_mult and decay_mult of BatchNorm's three statistics set to 0"
    ]


@pytest.mark.parametrize(("enum", "name"), SOLVER_TYPE_NAMES.items())
def test_solver_type(enum: str, name: str) -> None:
    solver = parse(f"solver_type: {enum} base_lr: 1", proto.SolverParameter)
    assert upgrade_solver(solver, "s") == [f"solver_type {enum} upgraded to type {name!r}"]
    assert to_text(solver) == f'base_lr: 1\ntype: "{name}"\n'
    assert upgrade_solver(solver, "s") == []


def test_every_solver_type_has_its_name() -> None:
    assert list(SOLVER_TYPE_NAMES) == proto.SolverParameter.SolverType.keys()


def test_solver_type_given_twice() -> None:
    solver = parse('solver_type: SGD type: "Adam"', proto.SolverParameter)
    with pytest.raises(ProtoError, match="s: the solver's type is given twice; expected type alo"):
        upgrade_solver(solver, "s")


def test_nets_in_a_solver_are_upgraded() -> None:
    old = "{ layers { type: RELU } }"
    text = f"net_param {old} train_net_param {old} test_net_param {old} test_net_param {old}"
    solver = parse(text, proto.SolverParameter)
    assert len(upgrade_solver(solver, "s")) == 4
    nets = [solver.net_param, solver.train_net_param, *solver.test_net_param]
    assert [net.layer[0].type for net in nets] == ["ReLU"] * 4
    solver = parse("test_net_param { layer {} layers {} }", proto.SolverParameter)
    with pytest.raises(ProtoError, match=r"s \(test_net_param 0\): the net mixes"):
        upgrade_solver(solver, "s")


def test_snapshot_prefix(tmp_path: Path) -> None:
    solver = proto.SolverParameter()
    assert set_snapshot_prefix(solver, "models/a.b/solver.prototxt") == [
        "snapshot_prefix set to 'models/a.b/solver'"
    ]
    assert set_snapshot_prefix(solver, "other.prototxt") == []
    assert solver.snapshot_prefix == "models/a.b/solver"
    solver.snapshot_prefix = str(tmp_path)
    set_snapshot_prefix(solver, "models/solver.prototxt")
    assert solver.snapshot_prefix == str(tmp_path / "solver")
    solver.snapshot_prefix = ""
    assert set_snapshot_prefix(solver, "solver.prototxt") == []
