"""Test nets: run on the weights being learnt, as they are. Caffe: Solver::Test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from prototxt_gen.errors import ShapeError
from runtime.logs.glog import caffe_log, number
from runtime.net import Net
from runtime.net.finite import not_finite, sentence
from runtime.solvers.hooks import Score, TestResult
from runtime.solvers.nets import share_trained_layers

log = logging.getLogger("verydeep.solver")


class Outcome(NamedTuple):
    """One pass forward."""

    loss: float
    scores: list[float]
    """The numbers of the output blobs."""
    not_finite: tuple[str, ...] = ()
    """Blobs with NaN or infinity, where somebody looked."""


def read_scores(net: Net) -> list[Score]:
    """The numbers of a net's output blobs, in Caffe's order."""
    return [
        Score(name, float(value), net.output_weight(name))
        for name in net.outputs
        for value in net.blobs[name].data.host().ravel()
    ]


def check_outcomes(net: Net, counts: Sequence[int]) -> None:
    """Raise unless the outputs of all batches hold equally many numbers.

    Raises:
        ShapeError: an output's size follows the images', which have no mean.
    """
    if len(set(counts)) > 1:
        raise ShapeError(
            f"net '{net.name}': its outputs {', '.join(net.outputs)} hold {min(counts)} to "
            f"{max(counts)} numbers, depending on the batch; expected equally many in each, of "
            "which the mean is taken; end the net in losses and accuracies, and other tops in "
            "Silence layers, or set crop_size"
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
    """The test nets of one solver."""

    def __init__(self, nets: Sequence[Net], train_net: Net, test_iter: Sequence[int]) -> None:
        self.nets = list(nets)
        self.train_net = train_net
        self.test_iter = [int(n) for n in test_iter]
        self._passes_before: list[int] | None = None

    @property
    def passes(self) -> list[int]:
        """Where each net's data stands; during a test, where it stood before.

        A snapshot taken during a test leads to the test being run again, on the same images.
        """
        return self._passes_before or [net.context.pass_number for net in self.nets]

    def begin(self) -> None:
        """Note where the data stands, before a round of tests."""
        self._passes_before = [net.context.pass_number for net in self.nets]

    def end(self, complete: bool) -> None:
        """End a round of tests; one that was broken off has not moved the data."""
        if not complete and self._passes_before is not None:
            self.set_passes(self._passes_before)
        self._passes_before = None

    def set_passes(self, passes: Sequence[int]) -> None:
        """Set where each net's data stands."""
        for net, pass_number in zip(self.nets, passes):
            net.context.pass_number = pass_number

    def run(
        self, net_id: int, iteration: int, compute_loss: bool, go_on: Callable[[], bool]
    ) -> TestResult | None:
        """Mean outputs of one test net over its test_iter batches, or None where told to stop."""
        net = self.nets[net_id]
        caffe_log("solver.cpp:347", "Iteration %d, Testing net (#%d)", iteration, net_id)
        outcomes = self.run_batches(net_id, go_on)
        if outcomes is None:
            caffe_log("solver.cpp:396", "Test interrupted.")
            return None
        # Added in the order of the batches, so that it does not matter who computed which.
        loss = sum(outcome.loss for outcome in outcomes)
        check_outcomes(net, [len(outcome.scores) for outcome in outcomes])
        total = [sum(column) for column in zip(*(outcome.scores for outcome in outcomes))]
        batches = self.test_iter[net_id]
        scores = tuple(
            Score(score.name, value / batches, score.loss_weight)
            for score, value in zip(read_scores(net), total)
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

    def run_batches(self, net_id: int, go_on: Callable[[], bool]) -> list[Outcome] | None:
        """Loss and outputs of each of test_iter batches, in order; None where told to stop."""
        net = self.nets[net_id]
        share_trained_layers(net, self.train_net)
        outcomes = []
        for _ in range(self.test_iter[net_id]):
            if not go_on():
                return None
            outcomes.append(run_test_batch(net))
        return outcomes


def run_batch(net: Net) -> Outcome:
    """One pass forward: its loss, and the numbers of its output blobs."""
    loss = net.forward()
    return Outcome(loss, [score.value for score in read_scores(net)])


def run_test_batch(net: Net) -> Outcome:
    """One pass forward of a test net, whose numbers are looked at as well."""
    return run_batch(net)._replace(not_finite=not_finite(net))
