"""What a solver tells those who watch it or take part: progress, logs, guards, replicas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.solvers.solver import Solver


@dataclass(frozen=True)
class Score:
    """One number of a net's outputs; `loss_weight` is 0 for what is no loss."""

    name: str
    value: float
    loss_weight: float = 0.0


@dataclass(frozen=True)
class Progress:
    """One iteration, before its update."""

    iteration: int
    loss: float
    """Mean of the iter_size passes."""
    smoothed_loss: float
    """Mean over the last average_loss iterations: what Caffe logs."""
    display: bool
    """This iteration is one to show."""
    scores: tuple[Score, ...] = ()
    """The train net's outputs of the last pass; read from the device only where `display`."""


@dataclass(frozen=True)
class TestResult:
    """Mean outputs of one test net."""

    iteration: int
    net_id: int
    scores: tuple[Score, ...]
    loss: float | None = None
    """Where test_compute_loss asks for it."""
    not_finite: tuple[str, ...] = ()
    """Blobs with NaN or infinity among the outputs and what they are computed of."""


class SolverHook:
    """Base of what attaches to a solver; every method may be left out.

    Hooks are called in the order they were added. What they raise ends the run.
    """

    def on_solve(self, solver: Solver) -> None:
        """Called when `solve` is about to take its first step."""

    def on_start(self, solver: Solver) -> None:
        """Called before an iteration's gradients. Caffe: Callback::on_start."""

    def on_gradients_ready(self, solver: Solver) -> None:
        """Called between gradients and update. Caffe: Callback::on_gradients_ready."""

    def on_iteration(self, solver: Solver, progress: Progress) -> None:
        """Called when an iteration's loss is known, before the gradients are used."""

    def on_rate(self, solver: Solver, iteration: int, rate: float) -> None:
        """Called when the learning rate of an iteration is known, before the update."""

    def on_iteration_end(self, solver: Solver) -> None:
        """Called after an update; `solver.iter` counts it already."""

    def on_test_start(self, solver: Solver, net_id: int) -> None:
        """Called before a test net runs."""

    def on_test(self, solver: Solver, result: TestResult) -> None:
        """Called with a test net's mean outputs."""

    def on_snapshot(self, solver: Solver, files: tuple[Path, ...]) -> None:
        """Called when a snapshot is safely on the disk."""

    def on_end(self, solver: Solver, reason: str) -> None:
        """Called when `solve` returns ("done", "stopped") or raises ("failed")."""
