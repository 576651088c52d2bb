"""UpdateRule: how gradients change weights; what tells the solver types apart."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.backend.base import Backend, HostArray
from runtime.core.synced_memory import SyncedMemory

_REGISTRY: dict[str, type[UpdateRule]] = {}


@dataclass
class ParamSlot:
    """One weight blob, or a slice of one, as an update rule sees it."""

    name: str
    data: SyncedMemory
    diff: SyncedMemory
    history: list[SyncedMemory]
    lr_mult: float
    decay_mult: float


class UpdateRule:
    """Base of the solver types. An update is element by element, so a slice does as well as a blob.

    Before `update` the diff is the normalised gradient; after it, what was taken off the weights,
    as in Caffe.
    """

    type: ClassVar[str] = ""
    histories: ClassVar[int] = 1
    """History blobs of one weight blob; the solverstate holds all first ones, then the second."""
    only_ops: ClassVar[bool] = False
    """An update only calls ops, the same ones in every iteration. Not inherited."""

    def __init_subclass__(cls) -> None:
        """Reset what holds for the update of one class: a subclass may override it."""
        super().__init_subclass__()
        if "only_ops" not in vars(cls):
            cls.only_ops = False

    def __init__(self, param: Any, backend: Backend) -> None:
        """Take the constants of a SolverParameter, rounded to the backend's dtype.

        Raises:
            ProtoError: a setting this solver type does not have, or out of its range.
        """
        self.backend = backend
        self.leaves_update = True
        """Whether the diff afterwards is what was taken off; else it may hold anything."""
        self.scalar: Callable[[float], Any] = backend.dtype.type
        self.momentum = self.scalar(param.momentum)
        self.weight_decay = float(param.weight_decay)
        self.regularization_type = str(param.regularization_type)
        if self.weight_decay and self.regularization_type not in ("L1", "L2"):
            raise ProtoError(
                f"solver: unknown regularization_type '{self.regularization_type}'; "
                "expected 'L1' or 'L2'; correct it"
            )
        self.check(param)

    def check(self, param: Any) -> None:
        """Refuse settings that the type does not have."""

    def update(self, slot: ParamSlot, rate: float, iteration: int) -> None:
        """Regularise the gradient, make the update of it, take that off the weights."""
        weights, gradient = slot.data.mutable_host(), slot.diff.mutable_host()
        self.regularize(gradient, weights, self.weight_decay * slot.decay_mult)
        history = [memory.mutable_host() for memory in slot.history]
        gradient[...] = self.compute(gradient, history, self.local_rate(slot, rate), iteration)
        weights -= gradient

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """Return what to take off the weights, and bring the history up to date."""
        raise TypeError(f"solver type {self.type}: a rule must define compute or update")

    def local_rate(self, slot: ParamSlot, rate: float) -> Any:
        """The learning rate of one weight blob, in the backend's dtype."""
        return self.scalar(self.scalar(rate) * self.scalar(slot.lr_mult))

    def regularize(self, gradient: HostArray, weights: HostArray, decay: float) -> None:
        """Add the gradient of the weight penalty. Caffe: SGDSolver::Regularize."""
        if decay:
            penalty = weights if self.regularization_type == "L2" else np.sign(weights)
            gradient += self.scalar(decay) * penalty


def register_rule(cls: type[UpdateRule]) -> type[UpdateRule]:
    """Enter a rule under its type: `@register_rule`."""
    _REGISTRY[cls.type] = cls
    return cls


@cache
def _load_all() -> None:
    package = importlib.import_module("runtime.solvers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"runtime.solvers.{module.name}")


def solver_types() -> list[str]:
    """All known solver types."""
    _load_all()
    return sorted(_REGISTRY)


def create_rule(param: Any, backend: Backend) -> UpdateRule:
    """Make the rule that a SolverParameter's `type` names.

    Raises:
        ProtoError: not known; lists what is.
    """
    _load_all()
    found = _REGISTRY.get(param.type)
    if found is None:
        raise ProtoError(
            f"solver: unknown type '{param.type}'; expected one of {', '.join(solver_types())}; "
            "mind the capitals"
        )
    return found(param, backend)


def refuse_momentum(param: Any, type_name: str) -> None:
    """Refuse a momentum, for types whose history means something else."""
    if param.momentum:
        raise ProtoError(
            f"solver: Momentum cannot be used with {type_name}.; expected momentum 0, "
            f"got {param.momentum:g}; remove it"
        )
