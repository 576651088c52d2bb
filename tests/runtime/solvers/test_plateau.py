"""The paper's schedule with given scores, and in a solver."""

from __future__ import annotations

import logging
import math

import pytest

from prototxt_gen.errors import ProtoError, SnapshotError
from prototxt_gen.sidecar import PlateauOptions, Sidecar
from runtime.solvers.hooks import Score
from runtime.solvers.hooks import TestResult as Result
from runtime.solvers.options import SolverOptions
from runtime.solvers.plateau import Plateau, PlateauState
from tests.runtime.solvers.toy import CLASSIFIER, make_solver


def result(name: str, value: float, *not_finite: str) -> Result:
    return Result(0, 0, (Score(name, value),), None, not_finite)


def _rates(options: PlateauOptions, scores: list[float]) -> list[float]:
    plateau, rates = Plateau(options, 1.0), []
    for test, value in enumerate(scores):
        plateau.observe(test, result(options.metric, value))
        rates.append(plateau.rate)
    return rates


def test_the_rate_drops_after_patience_tests_without_gain() -> None:
    options = PlateauOptions(metric="acc", patience=2, factor=0.5, max_drops=2)
    scores = [0.1, 0.2, 0.2, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert _rates(options, scores) == pytest.approx(
        [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    )


def test_a_loss_is_better_when_smaller() -> None:
    options = PlateauOptions(metric="loss", mode="min", patience=1, factor=0.1)
    assert _rates(options, [3, 2, 1, 1, 0.5, 0.6]) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01])


def test_a_gain_of_min_delta_is_none() -> None:
    options = PlateauOptions(metric="acc", patience=1, factor=0.5, min_delta=0.25)
    assert _rates(options, [0.25, 0.5, 0.75]) == pytest.approx([1, 0.5, 0.5])


def test_it_may_end_the_run_after_the_last_drop() -> None:
    for stop in (True, False):
        options = PlateauOptions("acc", patience=1, max_drops=1, stop_after_last=stop)
        plateau = Plateau(options, 1.0)
        for value in (0.5, 0.5):
            plateau.observe(0, result("acc", value))
        assert not plateau.finished
        plateau.observe(0, result("acc", 0.5))
        assert plateau.finished is stop


def test_other_test_nets_do_not_count() -> None:
    plateau = Plateau(PlateauOptions(metric="acc", patience=1), 1.0)
    for _ in range(9):
        plateau.observe(0, result("loss", 1.0))
    assert plateau.state == PlateauState()


def test_its_history_survives_json() -> None:
    state = PlateauState(0.1 + 0.2, 40, 2, 1)
    assert PlateauState.from_json(state.to_json(), "x") == state
    with pytest.raises(SnapshotError, match="x: the plateau history is damaged"):
        PlateauState.from_json({"best": 1.0}, "x")


@pytest.mark.parametrize("name", sorted(PlateauState().to_json()))
@pytest.mark.parametrize("value", ["1", [], {}, 1.5, float("nan"), float("inf"), -1, 10**400, "x"])
def test_a_history_of_other_types_is_damaged(name: str, value: object) -> None:
    values = {**PlateauState(0.5, 40, 2, 1).to_json(), name: value}
    if name == "best" and (isinstance(value, float) or value == -1):
        expected = value if value in (1.5, -1) else None
        assert PlateauState.from_json(values, "x").best == expected
        return
    with pytest.raises(SnapshotError, match="x: the plateau history is damaged; expected the keys"):
        PlateauState.from_json(values, "x")


def test_scores_computed_of_nan_are_no_improvement() -> None:
    """A metric that is NaN, and the accuracy of 1 that scores with NaN give, do not count."""
    plateau = Plateau(PlateauOptions(metric="acc", patience=2, factor=0.5), 1.0)
    plateau.observe(0, result("acc", math.nan, "acc"))
    assert plateau.state.best is None and plateau.state.bad_tests == 1
    plateau.observe(1, result("acc", 0.25))
    plateau.observe(2, result("acc", 1.0, "ip2"))
    assert plateau.state.best == 0.25
    plateau.observe(3, result("acc", 1.0, "ip2"))
    assert plateau.rate == 0.5


FIELDS = "test_iter: 2 test_interval: 2 max_iter: 30 momentum: 0.9"


def _options(metric: str, **more: object) -> SolverOptions:
    schedule = PlateauOptions(metric=metric, patience=1, **more)  # type: ignore[arg-type]
    return SolverOptions(sidecar=Sidecar(schedule=schedule))


def test_a_solver_goes_by_the_test_score(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "verydeep")
    options = _options("accuracy", max_drops=2, stop_after_last=True)
    # A policy in the prototxt, for original Caffe, is ignored.
    solver = make_solver(
        f"{FIELDS} lr_policy: 'step' gamma: 0.5 stepsize: 1", CLASSIFIER, 8, options=options
    )
    solver.solve()
    assert solver.plateau is not None and solver.plateau.state.drops == 2
    assert solver.rate == pytest.approx(0.001)
    assert solver.iter < 30
    text = caplog.text
    assert "Learning Rate Policy: plateau" in text
    assert "step = 1: accuracy has not improved on" in text
    assert "has not improved on" in text and "after the last drop" in text
    assert text.count(f"Iteration {solver.iter}, Testing net") == 1
    assert text.count("Optimization Done.") == 1


def test_a_metric_that_no_test_net_has_is_refused() -> None:
    with pytest.raises(ProtoError, match=r"metric 'top9' is no output .* \(accuracy, loss\)"):
        make_solver(FIELDS, CLASSIFIER, options=_options("top9"))
    with pytest.raises(ProtoError, match="none: there is no test net"):
        make_solver("", CLASSIFIER, options=_options("accuracy"))
