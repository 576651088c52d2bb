"""Checks that numbers in nets and solvers are finite and within the range of their field.

All numbers are found in one walk over the messages. Geometries and layers check limits that depend
on a bottom's shape or on several fields of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import Message

INT_MAX = 2**31 - 1
FLOAT_MAX = (2 - 2.0**-23) * 2.0**127
_UNIFORM_MAX = (2 - 2.0**-21) * 2.0**127
"""The second float below the largest: a uniform filler draws below the float after its max."""
_FLOATS = ("float", "double")
_UNSIGNED = ("uint32", "uint64")
_WITHIN = ("NetParameter", "LayerParameter", "V1LayerParameter", "BlobProto")
"""Messages that the walk does not enter: nets and layers are checked separately, and the values of
weights are data."""


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; with `below`, `high` is excluded."""

    low: float = -math.inf
    high: float = math.inf
    below: bool = False

    def holds(self, value: float) -> bool:
        return self.low <= value and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        """The range in the form of error messages."""
        if self.high == math.inf:
            return f"at least {self.low:.10g}"
        last = "below" if self.below else "at most"
        return f"at least {self.low:.10g} and {last} {self.high:.10g}"


_CAFFES_INT = Range(0, INT_MAX)
_NOT_NEGATIVE, _POSITIVE = Range(0), Range(1)
_DECAY = Range(0, 1, below=True)
RANGES: dict[str, dict[str, Range]] = {
    "SolverParameter": {
        **dict.fromkeys(("base_lr", "gamma", "weight_decay", "delta"), _NOT_NEGATIVE),
        **dict.fromkeys(("max_iter", "display", "test_interval", "snapshot"), _NOT_NEGATIVE),
        **dict.fromkeys(("stepsize", "stepvalue", "stageiter"), _NOT_NEGATIVE),
        **dict.fromkeys(("rampup_interval", "rampup_lr"), _NOT_NEGATIVE),
        **dict.fromkeys(("warmup_iter", "warmup_start_lr", "min_lr", "stagelr"), _NOT_NEGATIVE),
        **dict.fromkeys(("average_loss", "iter_size", "test_iter"), _POSITIVE),
        **dict.fromkeys(("momentum", "momentum2", "rms_decay"), _DECAY),
    },
    "FillerParameter": {"std": _NOT_NEGATIVE, "sparse": Range(-1)},
    "AccuracyParameter": {"top_k": _POSITIVE},
    "BatchNormParameter": {"moving_average_fraction": Range(0, 1), "eps": _NOT_NEGATIVE},
    "ContrastiveLossParameter": {"margin": _NOT_NEGATIVE},
    "DataParameter": {"prefetch": _POSITIVE},
    "MVNParameter": {"eps": _NOT_NEGATIVE},
}
"""By message and field. Other fields may have any finite value, as in Caffe: a negative lr_mult
reverses a gradient, a negative loss_weight a loss."""


def check_solver(solver: Message, where: str = "solver") -> None:
    """Check the numbers of a SolverParameter and of the nets written in it.

    Raises:
        ProtoError: a number is out of range; the message contains the field and its range.
    """
    _check(solver, where)
    nets = [getattr(solver, name) for name in ("net_param", "train_net_param")]
    for net in (*nets, *solver.test_net_param):
        check_net(net)


def check_net(net: Message) -> None:
    """Check the numbers of all layers of a NetParameter in the current form.

    Raises:
        ProtoError: a number is out of range; the message contains layer, field and range.
    """
    for layer in net.layer:
        check_layer(layer)


def check_layer(layer: Message) -> None:
    """Check the numbers of a LayerParameter; see `check_net`."""
    _check(layer, f"layer '{layer.name}' ({layer.type})")


def _check(message: Message, where: str, path: str = "") -> None:
    kind = message.DESCRIPTOR.name
    ranges = RANGES.get(kind, {})
    for field, value in message.ListFields():
        name = f"{path}{field.name}"
        values = value if proto.is_repeated(field) else (value,)
        if field.message_type is not None:
            if field.message_type.name not in _WITHIN:
                for item in values:
                    _check(item, where, f"{name}.")
        elif field.enum_type is None:
            _check_values(field, values, ranges.get(field.name), f"{where}: {name}")
    if kind in _RULES:
        _RULES[kind](message, f"{where}: {path}")


def _check_values(
    field: Message, values: Iterable[float], limits: Range | None, where: str
) -> None:
    kind = proto.type_name(field)
    if kind in _FLOATS:
        for value in values:
            if not abs(value) <= FLOAT_MAX:
                raise ProtoError(
                    f"{where}: not a finite number; expected at most {FLOAT_MAX:.8g} in "
                    f"magnitude, got {value}; correct it"
                )
    all_limits = [limits] if limits else []
    for allowed in (*all_limits, _CAFFES_INT) if kind in _UNSIGNED else all_limits:
        for value in values:
            if not allowed.holds(value):
                got = f"{value:g}" if kind in _FLOATS else value
                raise ProtoError(
                    f"{where}: out of range; expected {allowed}, got {got}; correct it"
                )


def check_uniform(low: float, high: float, where: str) -> None:
    """Check that a number between two bounds can be drawn in single precision.

    Equal bounds give a constant, as in Caffe.

    Raises:
        ProtoError: min is above max, or max - min is not a finite float.
    """
    if not low <= high or not max(high, high - low) <= _UNIFORM_MAX:
        raise ProtoError(
            f"{where}: no range for a uniform filler; expected min <= max and max - min below "
            f"{_UNIFORM_MAX:.8g}, got min {low:g} and max {high:g}; correct them"
        )


def _check_filler(filler: Message, where: str) -> None:
    if filler.type == "uniform":
        check_uniform(filler.min, filler.max, f"{where}min, max")


def _check_clip(clip: Message, where: str) -> None:
    if not clip.min <= clip.max:
        raise ProtoError(
            f"{where}min, max: out of order; expected min <= max, got {clip.min:g} and "
            f"{clip.max:g}; correct them"
        )


_RULES: dict[str, Callable[[Message, str], None]] = {
    "FillerParameter": _check_filler,
    "ClipParameter": _check_clip,
}
"""Checks of fields that depend on each other, by message."""
