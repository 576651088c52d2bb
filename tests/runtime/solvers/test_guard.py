"""Runs whose loss is not finite, clamped or constant."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import TrainingError
from runtime.net.shape_net import batch_of
from runtime.solvers.guard import CLAMPED_LOSS, LossGuard, chance_loss
from runtime.solvers.hooks import Progress
from tests.runtime.solvers.toy import CLASSIFIER, make_solver, prefix, same, weights


def _see(guard: LossGuard, losses: list[float], start: int = 0) -> None:
    solver = make_solver("", CLASSIFIER, 64)
    guard.on_solve(solver)
    for i, loss in enumerate(losses, start):
        guard.on_iteration(solver, Progress(i, loss, loss, False))


def test_nan_ends_the_run_and_keeps_what_is_good(tmp_path: Path) -> None:
    solver = make_solver(
        f"snapshot: 2 max_iter: 9 {prefix(tmp_path)}", CLASSIFIER, 64, hooks=(LossGuard(),)
    )

    def spoil(layer: int) -> None:
        if layer == 0 and solver.iter == 3:
            solver.net.blobs["data"].data.mutable_host()[0, 0] = np.nan

    solver.net.before_forward.append(spoil)
    with pytest.raises(TrainingError, match="iteration 3: the loss is nan") as caught:
        solver.solve()
    for advice in ("divide base_lr by 10", "label is below the number of classes", "intact"):
        assert advice in str(caught.value)
    # The weights were not updated with it, and no snapshot was taken after it.
    assert all(np.isfinite(w).all() for w in weights(solver))
    assert sorted(p.name for p in tmp_path.glob("*.caffemodel")) == ["toy_iter_2.caffemodel"]


def test_infinity_ends_the_run() -> None:
    with pytest.raises(TrainingError, match="iteration 1: the loss is inf"):
        _see(LossGuard(), [2.0, math.inf])


def test_a_clamped_loss_ends_the_run_when_it_stays() -> None:
    _see(LossGuard(), [CLAMPED_LOSS] * 9 + [2.0] + [CLAMPED_LOSS] * 9)
    with pytest.raises(TrainingError, match=r"87\.3365 for 10 iterations.*-log\(FLT_MIN\)"):
        _see(LossGuard(), [2.0] + [CLAMPED_LOSS] * 10)
    assert -math.log(np.finfo(np.float32).tiny) == pytest.approx(CLAMPED_LOSS, abs=1e-4)


def test_a_loss_at_ln_classes_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    guess = math.log(3)
    _see(LossGuard(window=20), [guess * 1.005] * 19)
    assert "stayed at" not in caplog.text
    _see(LossGuard(window=20), [guess * 1.005] * 20)
    for words in (
        "stayed at 1.1041",
        "for 20 iterations",
        "ln(classes) = 1.09861",
        "from-net-a",
        "xavier",
    ):
        assert words in caplog.text
    caplog.clear()
    # The interval between warnings doubles; a net that learns gets none.
    _see(LossGuard(window=20), [guess] * 100)
    assert caplog.text.count("stayed at") == 3
    caplog.clear()
    _see(LossGuard(window=20), [0.9 * guess] * 100)
    assert caplog.text == ""


def test_the_loss_of_a_net_at_chance() -> None:
    assert chance_loss(make_solver("", CLASSIFIER).net) == pytest.approx(math.log(3))
    assert chance_loss(make_solver("").net) is None


@pytest.mark.parametrize(
    ("batch", "iter_size", "warned"), [(8, 1, True), (8, 2, False), (64, 1, False), (2048, 1, True)]
)
def test_a_batch_far_from_the_papers_is_pointed_out(
    batch: int, iter_size: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "verydeep")
    solver = make_solver(f"iter_size: {iter_size}", CLASSIFIER, batch)
    assert batch_of(solver.net) == batch
    LossGuard().on_solve(solver)
    assert (f"The effective batch is {batch} and iter_size is 1" in caplog.text) is warned
    if batch == 8 and warned:
        assert "iter_size: 32 to update after 256 images" in caplog.text


def test_the_guard_changes_nothing() -> None:
    plain, guarded = make_solver("", CLASSIFIER), make_solver("", CLASSIFIER, hooks=(LossGuard(),))
    plain.step(5)
    guarded.step(5)
    assert same(weights(plain), weights(guarded))
