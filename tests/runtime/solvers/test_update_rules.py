"""Every solver type compared with its formula in float64, on a problem with a known gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import ProtoError
from runtime.backend.registry import create_backend
from runtime.solvers.update_rule import UpdateRule, solver_types
from tests.oracle import solvers as oracle
from tests.oracle.tolerance import assert_close
from tests.runtime.solvers.toy import (
    history,
    least_squares_batch,
    make_solver,
    same,
    solver_param,
    weights,
)

STEPS = 6


def _fields(settings: oracle.Settings, extra: str = "") -> str:
    return (
        f"type: '{settings.type}' base_lr: {settings.rate} momentum: {settings.momentum} "
        f"momentum2: {settings.momentum2} delta: {settings.delta} "
        f"rms_decay: {settings.rms_decay} weight_decay: {settings.weight_decay} "
        f"regularization_type: '{settings.regularization}' clip_gradients: {settings.clip} {extra}"
    )


def _learn(settings: oracle.Settings, start: list[Any], batch: int, iter_size: int) -> Any:
    # The fields of a SolverParameter are float32 for every dtype of the net.
    rounded = {
        field.name: float(np.float32(getattr(settings, field.name)))
        for field in dataclasses.fields(settings)
        if isinstance(getattr(settings, field.name), float)
    }
    settings = dataclasses.replace(settings, **rounded, lr_mults=(1.0, 2.0), decay_mults=(1.0, 0.0))
    learner = oracle.Learner(settings, [p.astype(np.float64) for p in start])
    for step in range(STEPS):
        passes = []
        for k in range(iter_size):
            x, y = least_squares_batch((step * iter_size + k) * batch, batch)
            passes.append(oracle.gradient(*learner.params, x, y))
        learner.step(passes)
    return learner


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("iter_size", [1, 3])
@pytest.mark.parametrize("name", oracle.CASES)
def test_updates_are_the_formulas(name: str, iter_size: int, dtype: str) -> None:
    settings = oracle.CASES[name]
    solver = make_solver(_fields(settings, f"iter_size: {iter_size}"), dtype=dtype)
    start = weights(solver)
    solver.step(STEPS)
    learner = _learn(settings, start, 4, iter_size)
    wanted = [*learner.params, *learner.first]
    got = [*weights(solver), *history(solver)[:2]]
    if solver.rule.histories == 2:
        wanted, got = [*wanted, *learner.second], [*got, *history(solver)[2:]]
    for value, want in zip(got, wanted):
        assert_close(name, value, want, 12 * STEPS, 2.0, factor=2.0)


def test_the_formulas_lead_downhill() -> None:
    for settings in oracle.CASES.values():
        solver = make_solver(_fields(settings))
        x, y = least_squares_batch(0, 200)
        before = oracle.loss(*weights(solver), x, y)
        solver.step(30)
        assert oracle.loss(*weights(solver), x, y) < before, settings.type


def test_the_diff_holds_what_was_taken_off() -> None:
    for settings in oracle.CASES.values():
        solver = make_solver(_fields(settings))
        before = weights(solver)
        solver.step(1)
        for old, blob in zip(before, solver.net.params.learnable):
            np.testing.assert_array_equal(old - blob.diff.host(), blob.data.host())


@pytest.mark.parametrize(
    ("iter_size", "limit", "step"),
    [
        # Four passes with the gradient (3, 4): 20 in all, clipped to 5, divided by 4.
        (4, 5.0, (-0.75, -1.0)),
        (1, 4.0, (-2.4, -3.2)),
        (1, 5.5, (-3.0, -4.0)),
        (1, 0.0, (0.0, 0.0)),
        (1, -1.0, (-3.0, -4.0)),
    ],
)
def test_clip_divide_and_step_in_this_order(
    iter_size: int, limit: float, step: tuple[float, float]
) -> None:
    net = """
    layer {{ name: "data" type: "Input" top: "data" top: "target"
      input_param {{ shape {{ dim: 1 dim: 2 }} shape {{ dim: 1 dim: 1 }} }} }}
    layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
      inner_product_param {{ num_output: 1 bias_term: false }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }}
    """
    solver = make_solver(f"base_lr: 1 iter_size: {iter_size} clip_gradients: {limit}", net, 1)
    solver.net.before_forward.clear()
    solver.net.blobs["data"].data.mutable_host()[...] = [[3, 4]]
    solver.net.blobs["target"].data.mutable_host()[...] = [[-1]]
    solver.step(1)
    np.testing.assert_allclose(weights(solver)[0], [step], rtol=1e-6)


@pytest.mark.parametrize("type_name", ["SGD", "Adam"])
def test_iter_size_k_is_a_batch_k_times_as_large(type_name: str) -> None:
    fields = f"type: '{type_name}' momentum: 0.9 weight_decay: 0.01 clip_gradients: -1"
    small = make_solver(f"{fields} iter_size: 3", batch=4, dtype="float64")
    large = make_solver(fields, batch=12, dtype="float64")
    small.step(5)
    large.step(5)
    for a, b in zip(weights(small), weights(large)):
        assert_close("weights", a, b, 12, 1.0, factor=8.0)


def test_a_layer_that_does_not_learn_stays() -> None:
    solver = make_solver("momentum: 0.9 weight_decay: 0.1")
    solver.engine.slots[1].lr_mult = 0.0
    before = weights(solver)
    solver.step(3)
    assert not same(before[:1], weights(solver)[:1])
    assert same(before[1:], weights(solver)[1:])


def test_every_type_has_a_formula_and_a_case() -> None:
    assert solver_types() == sorted(oracle.RULES)
    assert {settings.type for settings in oracle.CASES.values()} == set(oracle.RULES)


def test_caffes_types_are_registered() -> None:
    assert {"AdaDelta", "AdaGrad", "Adam", "Nesterov", "RMSProp", "SGD"} <= set(solver_types())


def test_a_rule_must_define_its_update() -> None:
    class Empty(UpdateRule):
        """A rule without a formula."""

    rule = Empty(solver_param(""), create_backend("cpu"))
    with pytest.raises(NotImplementedError):
        rule.compute(np.zeros(1), [], 0.1, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("type: 'Sgd'", f"unknown type 'Sgd'; expected one of {', '.join(solver_types())}; change"),
        ("type: 'AdaGrad' momentum: 0.9", "Momentum cannot be used with AdaGrad"),
        ("type: 'RMSProp' momentum: 0.9", "Momentum cannot be used with RMSProp"),
        (
            "type: 'RMSProp' rms_decay: 1",
            "rms_decay: out of range; expected at least 0 and below 1",
        ),
        ("type: 'Adam' momentum: 1", "momentum: out of range; expected at least 0 and bel"),
        ("type: 'Adam' momentum2: 1", "momentum2: out of range; expected at least 0 and b"),
        ("weight_decay: 0.1 regularization_type: 'L3'", "unknown regularization_type 'L3'"),
    ],
)
def test_settings_a_type_does_not_have_are_refused(fields: str, message: str) -> None:
    with pytest.raises(ProtoError, match=message):
        make_solver(fields)


def test_feeding_depends_on_the_sample_alone() -> None:
    solver = make_solver()
    whole, parts = least_squares_batch(0, 8), [least_squares_batch(k, 4) for k in (0, 4)]
    for i in range(2):
        np.testing.assert_array_equal(whole[i], np.concatenate([p[i] for p in parts]))
    assert solver.net.context.pass_number == 0
