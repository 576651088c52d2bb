from __future__ import annotations

import pytest

from prototxt_gen import proto, vgg
from prototxt_gen.solver import sidecar_of, solver_param, stepvalues
from prototxt_gen.spec import builtin_spec, with_values
from prototxt_gen.text import parse, to_text

PAPER = """\
net: "nets/D/train_val.prototxt"
test_iter: 1000
test_interval: 5000
base_lr: 0.01
display: 20
max_iter: 370000
lr_policy: "multistep"
gamma: 0.1
momentum: 0.9
weight_decay: 0.0005
stepvalue: 148000
stepvalue: 222000
stepvalue: 296000
snapshot: 10000
snapshot_prefix: "nets/D/VGG-D"
solver_mode: CPU
random_seed: 1
"""


def test_the_papers_solver_in_original_caffes_fields() -> None:
    solver = solver_param(builtin_spec("D"), "nets/D/train_val.prototxt", "nets/D/VGG-D")
    assert to_text(solver) == PAPER
    assert parse(PAPER, proto.SolverParameter) == solver


def test_passes_times_their_batch_are_the_papers_256() -> None:
    spec = with_values(builtin_spec("D"), {"solver.iter_size": 4})
    assert solver_param(spec, "n", "p").iter_size == 4
    assert spec.train_batch == 64


@pytest.mark.parametrize(("policy", "gamma", "drops"), [("multistep", 0.5, 3), ("fixed", 0.0, 0)])
def test_policies_that_caffe_has_need_no_sidecar(policy: str, gamma: float, drops: int) -> None:
    spec = with_values(builtin_spec("A"), {"solver.lr_policy": policy, "schedule.factor": 0.5})
    solver = solver_param(spec, "n", "p")
    assert (solver.lr_policy, solver.gamma, len(solver.stepvalue)) == (policy, gamma, drops)
    assert sidecar_of(spec).schedule is None


def test_the_sidecar_has_what_caffe_lacks() -> None:
    spec = with_values(
        builtin_spec("A"), {"shards": 8, "schedule.patience": 2, "precision": "bf16"}
    )
    sidecar = sidecar_of(spec)
    assert sidecar.schedule == spec.schedule
    assert sidecar.train == spec.data.train.options
    assert sidecar.test == spec.data.test.options
    assert (sidecar.shards, sidecar.weights_layers, sidecar.precision) == (8, (), "bf16")


def test_net_a_gives_the_papers_seven_layers() -> None:
    spec = with_values(
        builtin_spec("D"), {"init.method": "from-net-a", "init.weights": "nets/A/a.caffemodel"}
    )
    assert list(solver_param(spec, "n", "p").weights) == ["nets/A/a.caffemodel"]
    assert sidecar_of(spec).weights_layers == vgg.INITIAL_NET.layers


@pytest.mark.parametrize(
    ("max_iter", "drops", "expected"),
    [
        (370_000, 3, (148_000, 222_000, 296_000)),
        (2000, 3, (800, 1200, 1600)),
        (1000, 1, (400,)),
        (1000, 0, ()),
        (2, 3, (1,)),
    ],
)
def test_drops_share_the_iterations(max_iter: int, drops: int, expected: tuple[int, ...]) -> None:
    values = {"solver.max_iter": max_iter, "schedule.max_drops": drops}
    assert stepvalues(with_values(builtin_spec("A"), values)) == expected


def test_endless_drops_give_a_bounded_list() -> None:
    values = {"solver.max_iter": 2**31 - 1, "schedule.max_drops": 2**31 - 1}
    assert len(stepvalues(with_values(builtin_spec("A"), values))) == 10_000


def test_own_drops_are_kept() -> None:
    spec = with_values(builtin_spec("A"), {"solver.stepvalue": (7, 11)})
    assert list(solver_param(spec, "n", "p").stepvalue) == [7, 11]


def test_the_mode_is_caffes_enumeration() -> None:
    spec = with_values(builtin_spec("A"), {"solver.solver_mode": "GPU"})
    solver = solver_param(spec, "n", "p")
    assert solver.solver_mode == solver.GPU
    assert "solver_mode: GPU" in to_text(solver)


def test_poly_falls_to_nothing_at_the_end() -> None:
    spec = with_values(builtin_spec("A"), {"solver.lr_policy": "poly", "solver.power": 0.5})
    solver = solver_param(spec, "net", "prefix")
    assert (solver.lr_policy, solver.power, list(solver.stepvalue)) == ("poly", 0.5, [])
    assert not solver.HasField("gamma")
