"""What a solver tells those who watch it or take part: progress, logs, guards, replicas."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime.net import Net
from runtime.solvers.update_rule import UpdateRule


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


class EngineView(Protocol):
    """What hooks read of an engine."""

    @property
    def shards(self) -> int:
        """The equal parts in which the gradient of a batch is computed."""


class RunView(Protocol):
    """What hooks read of a solver."""

    @property
    def param(self) -> Any:
        """The SolverParameter."""

    @property
    def net(self) -> Net:
        """The train net."""

    @property
    def rule(self) -> UpdateRule:
        """How gradients change weights."""

    @property
    def engine(self) -> EngineView:
        """What computes gradients and updates."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def iter(self) -> int:
        """Updates made so far."""

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""

    @property
    def progress(self) -> Progress | None:
        """The last iteration; None before the first."""


class SolverHook:
    """Base of what attaches to a solver; every method may be left out.

    Hooks are called in the order they were added. What they raise ends the run.
    """

    def on_solve(self, solver: RunView) -> None:
        """Called when `solve` is about to take its first step."""

    def on_start(self, solver: RunView) -> None:
        """Called before an iteration's gradients. Caffe: Callback::on_start."""

    def on_gradients_ready(self, solver: RunView) -> None:
        """Called between gradients and update. Caffe: Callback::on_gradients_ready."""

    def on_iteration(self, solver: RunView, progress: Progress) -> None:
        """Called when an iteration's loss is known, before the gradients are used."""

    def on_rate(self, solver: RunView, iteration: int, rate: float) -> None:
        """Called when the learning rate of an iteration is known, before the update."""

    def on_iteration_end(self, solver: RunView) -> None:
        """Called after an update; `solver.iter` counts it already."""

    def on_test_start(self, solver: RunView, net_id: int) -> None:
        """Called before a test net runs."""

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Called with a test net's mean outputs."""

    def on_snapshot(self, solver: RunView, files: tuple[Path, ...]) -> None:
        """Called when a snapshot is safely on the disk."""

    def on_end(self, solver: RunView, reason: str) -> None:
        """Called when `solve` returns ("done", "stopped") or raises ("failed")."""
