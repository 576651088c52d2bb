"""Hooks: objects that a solver calls at the events of a run, for display, logs and guards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from runtime.net import Net
from runtime.solvers.update_rule import UpdateRule


@dataclass(frozen=True)
class Score:
    """One value of a net's outputs; `loss_weight` is 0 for outputs that are not losses."""

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
    """Mean over the last average_loss iterations, which Caffe logs."""
    display: bool
    """Whether this iteration is displayed."""
    scores: tuple[Score, ...] = ()
    """The train net's outputs of the last pass; only read from the device if `display`."""


@dataclass(frozen=True)
class TestResult:
    """Mean outputs of one test net."""

    iteration: int
    net_id: int
    scores: tuple[Score, ...]
    loss: float | None = None
    """Only with test_compute_loss."""
    not_finite: tuple[str, ...] = ()
    """Blobs with NaN or infinity among the outputs and the blobs they are computed from."""


class EngineView(Protocol):
    """The part of an engine that hooks read."""

    @property
    def shards(self) -> int:
        """Equal parts in which the gradient of a batch is computed."""


class RunView(Protocol):
    """The part of a solver that hooks read."""

    @property
    def param(self) -> Any:
        """The SolverParameter."""

    @property
    def net(self) -> Net:
        """The train net."""

    @property
    def test_nets(self) -> Sequence[Net]:
        """The test nets, in the order of the solver."""

    @property
    def rule(self) -> UpdateRule:
        """The update rule of the solver type."""

    @property
    def engine(self) -> EngineView:
        """The engine, which computes gradients and updates."""

    @property
    def seed(self) -> int:
        """The seed of the run."""

    @property
    def iter(self) -> int:
        """Updates so far."""

    @property
    def rate(self) -> float:
        """The learning rate of the last update."""

    @property
    def progress(self) -> Progress | None:
        """The last iteration; None before the first."""


class SolverHook:
    """Base class of hooks; every method is optional.

    Hooks are called in the order in which they were added. An exception from a hook ends the run.
    """

    @property
    def wants_stop(self) -> bool:
        """Whether the run is to stop with a snapshot; read after tests and after iterations."""
        return False

    def on_solve(self, solver: RunView) -> None:
        """Called at the start of `solve`, before the first iteration."""

    def on_start(self, solver: RunView) -> None:
        """Called before the gradients of an iteration. Caffe: Callback::on_start."""

    def on_iteration(self, solver: RunView, progress: Progress) -> None:
        """Called when the gradients and the loss of an iteration are computed."""

    def on_gradients_ready(self, solver: RunView) -> None:
        """Called after on_iteration, before the update. Caffe: Callback::on_gradients_ready."""

    def on_rate(self, solver: RunView, iteration: int, rate: float) -> None:
        """Called with the learning rate of an iteration, before the update."""

    def on_iteration_end(self, solver: RunView) -> None:
        """Called after an update, which `solver.iter` already counts, and after its snapshot."""

    def on_test_start(self, solver: RunView, net_id: int) -> None:
        """Called before a test net runs."""

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Called with the mean outputs of a test net."""

    def on_snapshot(self, solver: RunView, files: tuple[Path, ...]) -> None:
        """Called after a snapshot was written: weights, solver state, resume state."""

    def on_end(self, solver: RunView, reason: str) -> None:
        """Called when `solve` returns ("done", "stopped") or raises ("failed")."""
