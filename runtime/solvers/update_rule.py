"""UpdateRule: how gradients change weights; one subclass for each solver type."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.backend.base import Backend, HostArray, LayerKernels
from runtime.core.synced_memory import SyncedMemory

_REGISTRY: dict[str, type[UpdateRule]] = {}


@dataclass
class ParamSlot:
    """A weight blob or a part of one, with its gradient and its history.

    Shapes: data, diff and each history are equal; a part is flat.
    """

    name: str
    data: SyncedMemory
    diff: SyncedMemory
    history: list[SyncedMemory]
    lr_mult: float
    decay_mult: float


class UpdateRule:
    """Base class of the solver types; subclasses define `compute` or override `update`.

    An update is computed element by element, so that it applies to parts of a blob. Before `update`
    the diff is the gradient divided by iter_size; after it, the values that were subtracted from
    the weights, as in Caffe.
    """

    type: ClassVar[str] = ""
    """The type in a SolverParameter."""
    histories: ClassVar[int] = 1
    """History blobs for each weight blob. See History for their order."""
    only_ops: bool = False
    """Whether an update only calls ops, the same ones in every iteration. Not inherited."""
    kernel: ClassVar[str] = ""
    """The kernel of solver_updates.cu for `compute` on a device. Not inherited."""

    def __init_subclass__(cls) -> None:
        """Reset `only_ops` and `kernel`, because a subclass may override the update."""
        super().__init_subclass__()
        for name in ("only_ops", "kernel"):
            if name not in vars(cls):
                setattr(cls, name, vars(UpdateRule)[name])

    def __init__(self, param: Any, backend: Backend) -> None:
        """Read the constants of a SolverParameter, rounded to the backend's dtype.

        Raises:
            ProtoError: a setting is out of range or does not apply to this solver type.
        """
        self.backend = backend
        self.leaves_update = True
        """Whether the diff has the update afterwards; otherwise its values are undefined."""
        self.scalar: Callable[[float], Any] = backend.dtype.type
        self.momentum = self.scalar(param.momentum)
        self.weight_decay = float(param.weight_decay)
        self.regularization_type = str(param.regularization_type)
        if self.weight_decay and self.regularization_type not in ("L1", "L2"):
            raise ProtoError(
                f"solver: unknown regularization_type '{self.regularization_type}'; "
                "expected 'L1' or 'L2'; change regularization_type"
            )
        self.check(param)
        if self.kernel and backend.kernels is not None:
            self.only_ops = True

    def check(self, param: Any) -> None:
        """Check the settings of the type and read its own constants.

        Raises:
            ProtoError: a setting is out of range or does not apply to this solver type.
        """

    def update(self, slot: ParamSlot, rate: float, iteration: int) -> None:
        """Regularise the gradient, compute the update and subtract it from the weights.

        `iteration` is the number of earlier updates.
        """
        kernels = self.backend.kernels
        if self.kernel and kernels is not None:
            self._launch(kernels, slot, self.step_rate(slot, rate, iteration))
            return
        weights, gradient = slot.data.mutable_host(), slot.diff.mutable_host()
        self.regularize(gradient, weights, self.weight_decay * slot.decay_mult)
        history = [memory.mutable_host() for memory in slot.history]
        gradient[...] = self.compute(gradient, history, self.local_rate(slot, rate), iteration)
        weights -= gradient

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """Compute the values to subtract from the weights, and update the history in place.

        Shapes: gradient, each history and the result are equal.
        """
        raise NotImplementedError

    def _launch(self, kernels: LayerKernels, slot: ParamSlot, rate: float) -> None:
        """Update on the device, by one kernel."""
        arrays = [memory.mutable_dev() for memory in (slot.diff, slot.data, *slot.history)]
        place = kernels.replayed_rate(rate)
        args = (
            *arrays,
            slot.data.count,
            rate if place is None else 0.0,
            place,
            float(self.scalar(self.weight_decay * slot.decay_mult)),
            int(self.regularization_type == "L1"),
            int(self.leaves_update),
            *(float(value) for value in self.kernel_constants()),
        )
        kernels.elementwise("solver_updates", self.kernel, slot.data.count, args)

    def kernel_constants(self) -> Sequence[Any]:
        """The last arguments of the kernel, scalars of the backend's dtype."""
        raise NotImplementedError

    def step_rate(self, slot: ParamSlot, rate: float, iteration: int) -> float:
        """The factor of a step: the local rate, with corrections that depend on the iteration."""
        return float(self.local_rate(slot, rate))

    def local_rate(self, slot: ParamSlot, rate: float) -> Any:
        """The learning rate of a weight blob, a scalar of the backend's dtype."""
        return self.scalar(self.scalar(rate) * self.scalar(slot.lr_mult))

    def regularize(self, gradient: HostArray, weights: HostArray, decay: float) -> None:
        """Add the gradient of the weight penalty in place. Caffe: SGDSolver::Regularize.

        Shapes: gradient and weights are equal.
        """
        if decay:
            penalty = weights if self.regularization_type == "L2" else np.sign(weights)
            gradient += self.scalar(decay) * penalty


def register_rule(cls: type[UpdateRule]) -> type[UpdateRule]:
    """Register a rule as the solver type `cls.type`; a class decorator."""
    _REGISTRY[cls.type] = cls
    return cls


@cache
def _load_all() -> None:
    package = importlib.import_module("runtime.solvers")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"runtime.solvers.{module.name}")


def solver_types() -> list[str]:
    """The names of all solver types, sorted."""
    _load_all()
    return sorted(_REGISTRY)


def create_rule(param: Any, backend: Backend) -> UpdateRule:
    """Create the rule of a SolverParameter's `type`.

    Raises:
        ProtoError: an unknown type, or see UpdateRule.
    """
    _load_all()
    cls = _REGISTRY.get(param.type)
    if cls is None:
        raise ProtoError(
            f"solver: unknown type '{param.type}'; expected one of {', '.join(solver_types())}; "
            "change type (it is case-sensitive)"
        )
    return cls(param, backend)


def refuse_momentum(param: Any, type_name: str) -> None:
    """Require momentum 0, for types whose history is not a momentum.

    Raises:
        ProtoError: the momentum is not 0.
    """
    if param.momentum:
        raise ProtoError(
            f"solver: Momentum cannot be used with {type_name}.; expected momentum 0, "
            f"got {param.momentum:g}; remove it"
        )
