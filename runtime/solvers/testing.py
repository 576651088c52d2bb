"""Test nets: run with the current weights of the train net. Caffe: Solver::Test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prototxt_gen.errors import ShapeError
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.net.finite import not_finite, sentence
from runtime.solvers.hooks import Score, TestResult

log = logging.getLogger("verydeep.solver")


class Outcome(NamedTuple):
    """The loss and the outputs of one forward pass."""

    loss: float
    scores: list[float]
    """The values of the output blobs."""
    not_finite: tuple[str, ...] = ()
    """Blobs with NaN or infinity; only test passes are checked."""


RunTest = Callable[[int, int, Callable[[], bool]], list[Outcome] | None]
"""Engine.run_test."""


def read_scores(net: Net) -> list[Score]:
    """The values of a net's output blobs, in Caffe's order."""
    return [
        Score(name, float(value), net.output_weight(name))
        for name in net.outputs
        for value in net.blobs[name].data.host().ravel()
    ]


def check_outcomes(net: Net, counts: Sequence[int]) -> None:
    """Require that the outputs of all batches have the same number of values.

    Raises:
        ShapeError: the size of an output depends on the images, so it has no mean.
    """
    if len(set(counts)) > 1:
        raise ShapeError(
            f"net '{net.name}': its outputs {', '.join(net.outputs)} hold {min(counts)} to "
            f"{max(counts)} numbers, depending on the batch; expected equally many in each, "
            "because their mean is computed; end the net with losses and accuracies, and other "
            "tops with Silence layers, or set crop_size"
        )


def score_line(index: int, phase: str, score: Score) -> str:
    """`    Test net output #0: loss = 1.72728 (* 1 = 1.72728 loss)`."""
    return f"    {phase} net output #{index}: {score_text(score)}"


def score_text(score: Score) -> str:
    """`loss = 1.72728 (* 1 = 1.72728 loss)`."""
    text = f"{score.name} = {number(score.value)}"
    if score.loss_weight:
        text += f" (* {number(score.loss_weight)} = {number(score.loss_weight * score.value)} loss)"
    return text


class TestNets:
    """The test nets of one solver, and the position of their data."""

    def __init__(self, nets: Sequence[Net], test_iter: Sequence[int], run_test: RunTest) -> None:
        self.nets = list(nets)
        self.test_iter = [int(count) for count in test_iter]
        self._run_test = run_test
        self._passes_before: list[int] | None = None

    @property
    def passes(self) -> list[int]:
        """The pass number of each net; during a test, the one before the test.

        A run resumed from a snapshot taken during a test repeats the test with the same images.
        """
        return self._passes_before or [net.context.pass_number for net in self.nets]

    def begin(self) -> None:
        """Store the position of the data before a round of tests."""
        self._passes_before = [net.context.pass_number for net in self.nets]

    def end(self, complete: bool) -> None:
        """End a round of tests; after an incomplete one the data returns to its position before."""
        if not complete and self._passes_before is not None:
            self.set_passes(self._passes_before)
        self._passes_before = None

    def set_passes(self, passes: Sequence[int]) -> None:
        """Set the pass number of each net."""
        for net, pass_number in zip(self.nets, passes):
            net.context.pass_number = pass_number

    def run(
        self, net_id: int, iteration: int, compute_loss: bool, should_continue: Callable[[], bool]
    ) -> TestResult | None:
        """The mean outputs of one test net over its test_iter batches; None if interrupted.

        Raises:
            ShapeError: see check_outcomes.
            DataError, DeviceError: a pass failed.
        """
        net, batches = self.nets[net_id], self.test_iter[net_id]
        caffe_log("solver.cpp:347", "Iteration %d, Testing net (#%d)", iteration, net_id)
        outcomes = self._run_test(net_id, batches, should_continue)
        if outcomes is None:
            caffe_log("solver.cpp:396", "Test interrupted.")
            return None
        # Added in the order of the batches: the sum does not depend on the number of replicas.
        loss = sum(outcome.loss for outcome in outcomes)
        check_outcomes(net, [len(outcome.scores) for outcome in outcomes])
        totals = [sum(column) for column in zip(*(outcome.scores for outcome in outcomes))]
        scores = tuple(
            Score(score.name, total / batches, score.loss_weight)
            for score, total in zip(read_scores(net), totals)
        )
        if compute_loss:
            caffe_log("solver.cpp:401", "Test loss: %s", number(loss / batches))
        for index, score in enumerate(scores):
            caffe_log("solver.cpp:414", "%s", score_line(index, "Test", score))
        wrong = tuple(dict.fromkeys(name for outcome in outcomes for name in outcome.not_finite))
        if wrong:
            log.warning("Iteration %d, test net #%d: %s", iteration, net_id, sentence(wrong))
        mean_loss = loss / batches if compute_loss else None
        return TestResult(iteration, net_id, scores, mean_loss, wrong)


def run_batch(net: Net) -> Outcome:
    """Run one forward pass."""
    loss = net.forward()
    return Outcome(loss, [score.value for score in read_scores(net)])


def run_test_batch(net: Net) -> Outcome:
    """Run one forward pass of a test net and check its values for NaN and infinity."""
    return run_batch(net)._replace(not_finite=not_finite(net))


def run_test_batches(
    net: Net, batches: int, should_continue: Callable[[], bool]
) -> list[Outcome] | None:
    """Run batches of a test net on one device. See Engine.run_test."""
    outcomes = []
    for _ in range(batches):
        if not should_continue():
            return None
        outcomes.append(run_test_batch(net))
    return outcomes
