"""Images and floating-point operations per second of measured passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runtime.net import Net
from runtime.net.shape_net import batch_of

_OPERATIONS = 2
"""Floating-point operations of a multiply-add."""

NOTE = "GFLOP/s: 2 operations for each multiply-add of the convolutions and inner products"


class Work(NamedTuple):
    """Multiply-adds of a layer in a pass of the batch."""

    forward: int
    backward: int
    """Those of forward once for the gradient of the weights and once for that of the bottoms."""


@dataclass(frozen=True)
class Rate:
    """The rate of one pass, or of both. Units: images/s, GFLOP/s."""

    images: float
    gflop: float

    def as_dict(self) -> dict[str, float]:
        return {"images_per_s": self.images, "gflop_per_s": self.gflop}


@dataclass(frozen=True)
class Throughput:
    """The rates of the passes of a net, and its batch. A pass that was not run has no rate."""

    batch: int
    forward: Rate
    backward: Rate | None
    both: Rate | None

    def as_dict(self) -> dict[str, Any]:
        rates = {"forward": self.forward, "backward": self.backward, "both": self.both}
        result: dict[str, Any] = {"batch": self.batch}
        return result | {name: rate and rate.as_dict() for name, rate in rates.items()}


def work_of(net: Net) -> list[Work]:
    """The multiply-adds of each layer."""
    works = []
    for i, layer in enumerate(net.layers):
        forward = layer.multiply_adds(len(net.bottoms[i]))
        gradients = any(layer.param_propagate_down) + any(net.bottom_need_backward[i])
        works.append(Work(forward, forward * gradients))
    return works


def gflop_per_s(multiply_adds: int, milliseconds: float) -> float:
    """Operations per second, in 10^9; 0 for no work or no time."""
    return _OPERATIONS * multiply_adds / milliseconds / 1e6 if milliseconds > 0 else 0.0


def throughput(net: Net, forward: float, backward: float) -> Throughput:
    """The rates of passes that took `forward` and `backward`. Units: ms, 0 for a pass not run."""
    work, batch = work_of(net), batch_of(net)
    ahead, back = sum(layer.forward for layer in work), sum(layer.backward for layer in work)
    return Throughput(
        batch,
        _rate(batch, ahead, forward),
        _rate(batch, back, backward) if backward else None,
        _rate(batch, ahead + back, forward + backward) if backward else None,
    )


def rate_columns(
    net: Net, forward: Sequence[float], backward: Sequence[float]
) -> list[tuple[str, str]]:
    """GFLOP/s of each layer, forward and backward, as text; empty for layers without work."""
    return [
        (_text(work.forward, ahead), _text(work.backward, back))
        for work, ahead, back in zip(work_of(net), forward, backward, strict=True)
    ]


def throughput_lines(rates: Throughput) -> list[str]:
    """The rates as lines of text."""
    named = {
        "forward": rates.forward,
        "backward": rates.backward,
        "forward and backward": rates.both,
    }
    lines = [
        f"{name}: {rate.images:.1f} images/s, {rate.gflop:.2f} GFLOP/s"
        for name, rate in named.items()
        if rate is not None
    ]
    return [f"batch size: {rates.batch}", *lines, NOTE]


def _rate(batch: int, multiply_adds: int, milliseconds: float) -> Rate:
    images = 1e3 * batch / milliseconds if milliseconds > 0 else 0.0
    return Rate(images, gflop_per_s(multiply_adds, milliseconds))


def _text(multiply_adds: int, milliseconds: float) -> str:
    rate = gflop_per_s(multiply_adds, milliseconds)
    return f"{rate:.2f}" if rate else ""
