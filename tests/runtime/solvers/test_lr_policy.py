"""The learning rate of every policy, computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, TrainingError
from runtime.solvers.lr_policy import POLICIES, learning_rate
from tests.runtime.solvers.toy import make_solver

TABLE = [
    # The fields of a solver, and the rate by iteration.
    ("lr_policy: 'fixed'", {0: 0.5, 99: 0.5}),
    ("lr_policy: 'step' gamma: 0.5 stepsize: 10", {0: 0.5, 9: 0.5, 10: 0.25, 25: 0.125}),
    ("lr_policy: 'exp' gamma: 0.5", {0: 0.5, 1: 0.25, 3: 0.0625}),
    ("lr_policy: 'inv' gamma: 0.25 power: 2", {0: 0.5, 4: 0.125, 12: 0.03125}),
    ("lr_policy: 'poly' power: 2 max_iter: 100", {0: 0.5, 50: 0.125, 100: 0.0}),
    ("lr_policy: 'poly' power: 1 max_iter: 100", {25: 0.375, 150: -0.25}),
    (
        "lr_policy: 'sigmoid' gamma: 0.5 stepsize: 10",
        {10: 0.25, 0: 0.5 / (1 + math.exp(5)), 14: 0.5 / (1 + math.exp(-2))},
    ),
    # Of NVIDIA's and Intel's builds.
    ("lr_policy: 'fixed' rampup_interval: 4", {0: 0.0, 1: 0.125, 3: 0.375, 4: 0.5, 9: 0.5}),
    (
        "lr_policy: 'step' gamma: 0.5 stepsize: 2 rampup_interval: 5 rampup_lr: 0.25",
        {0: 0.25, 1: 0.3, 4: 0.45, 5: 0.125, 6: 0.0625},
    ),
    ("lr_policy: 'fixed' warmup_iter: 4 warmup_start_lr: 0.1", {0: 0.1, 2: 0.3, 4: 0.5}),
    (
        "lr_policy: 'poly' power: 2 max_iter: 100 min_lr: 0.1",
        {0: 0.5, 50: 0.2, 100: 0.1},
    ),
    (
        "lr_policy: 'multifixed' stagelr: 0.25 stagelr: 2 stageiter: 3 stageiter: 8",
        {0: 0.25, 3: 0.25, 4: 2, 8: 2, 50: 2},
    ),
]


def _param(fields: str, base_lr: float = 0.5) -> object:
    return text.parse(f"base_lr: {base_lr} {fields}", proto.SolverParameter)


@pytest.mark.parametrize(("fields", "rates"), TABLE)
def test_rates(fields: str, rates: dict[int, float]) -> None:
    for iteration, rate in rates.items():
        assert learning_rate(_param(fields), iteration, 0)[0] == pytest.approx(rate, rel=1e-7)


def test_step_logs_its_step() -> None:
    param = _param("lr_policy: 'step' gamma: 0.5 stepsize: 10")
    assert [learning_rate(param, i, 7)[1] for i in (0, 9, 10, 35)] == [0, 0, 1, 3]


def test_multistep_moves_at_most_one_step_a_call() -> None:
    param = _param("lr_policy: 'multistep' gamma: 0.5 stepvalue: 3 stepvalue: 5")
    step, seen = 0, []
    for iteration in range(8):
        rate, step = learning_rate(param, iteration, step)
        seen.append(rate)
    assert seen == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.125]
    # A run that starts at a later iteration advances one step per call.
    assert learning_rate(param, 100, 0) == (0.25, 1)
    assert learning_rate(param, 101, 1) == (0.125, 2)
    assert learning_rate(param, 102, 2) == (0.125, 2)


def test_arithmetic_that_python_refuses_is_c() -> None:
    # C's pow: the root of a negative number is NaN, an overflow is infinity.
    param = _param("lr_policy: 'poly' power: 0.5 max_iter: 10")
    assert math.isnan(learning_rate(param, 20, 0)[0])
    assert learning_rate(_param("lr_policy: 'exp' gamma: 10"), 10**6, 0)[0] == math.inf
    assert learning_rate(_param("lr_policy: 'sigmoid' gamma: 9 stepsize: 9999"), 0, 0)[0] == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("", "Unknown learning rate policy: ''; expected one of fixed, step, exp, inv, multistep"),
        ("lr_policy: 'linear'", "Unknown learning rate policy: 'linear'"),
        ("lr_policy: 'plateau'", r"expected the policy in the \[schedule\] table"),
        ("lr_policy: 'step' gamma: 0.1", "stepsize does not suit lr_policy 'step'; expected more"),
        ("lr_policy: 'exp' gamma: -1", "gamma does not suit lr_policy 'exp'; expected at least 0"),
        ("lr_policy: 'sigmoid' gamma: -1 stepsize: 1", "gamma does not suit lr_policy 'sigmoid'"),
        ("lr_policy: 'poly' power: 1", "max_iter does not suit lr_policy 'poly'"),
        ("lr_policy: 'fixed' warmup_iter: 2 rampup_interval: 3", "warmup_iter 2 and rampup_inter"),
        ("lr_policy: 'multifixed' stagelr: 1", "as many stagelr as stageiter, at least one, got 1"),
        ("lr_policy: 'multifixed'", "at least one, got 0 and 0"),
    ],
)
def test_policies_that_cannot_be_are_refused(fields: str, message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        learning_rate(_param(fields), 0, 0)


def test_a_solver_refuses_them_when_it_is_made() -> None:
    with pytest.raises(ProtoError, match="Unknown learning rate policy: 'linear'"):
        make_solver("lr_policy: 'linear'")


def test_a_rate_that_is_no_number_ends_the_run() -> None:
    solver = make_solver("lr_policy: 'poly' power: 0.5 max_iter: 2")
    with pytest.raises(TrainingError, match="iteration 3: lr_policy 'poly' gives a rate of nan"):
        solver.step(5)


def test_the_rate_is_rounded_to_the_dtype_of_the_net() -> None:
    exact = float(np.float32(0.1)) * float(np.float32(0.9)) ** 2
    for dtype, wanted in (("float32", float(np.float32(exact))), ("float64", exact)):
        solver = make_solver("lr_policy: 'exp' base_lr: 0.1 gamma: 0.9", dtype=dtype)
        solver.step(3)
        assert solver.rate == wanted


def test_every_policy_of_caffe_is_there() -> None:
    caffes = ["fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid"]
    assert list(POLICIES) == [*caffes, "multifixed"]


def test_multistep_counts_its_steps_after_the_warm_up() -> None:
    fields = "lr_policy: 'multistep' gamma: 0.5 stepvalue: 2 rampup_interval: 4"
    rates, step = [], 0
    for iteration in range(6):
        rate, step = learning_rate(_param(fields), iteration, step)
        rates.append(rate)
    assert rates == [0, 0.125, 0.25, 0.375, 0.25, 0.25]


def test_a_solver_warms_up() -> None:
    solver = make_solver("lr_policy: 'fixed' base_lr: 0.5 rampup_interval: 2 rampup_lr: 0.25")
    rates = []
    for _ in range(4):
        solver.step(1)
        rates.append(solver.rate)
    assert rates == [0.25, 0.375, 0.5, 0.5]
