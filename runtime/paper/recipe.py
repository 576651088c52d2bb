"""The sequence of training runs behind each net of the paper. Paper: section 3.1.

Net A is trained first. A deeper net starts from A's first four convolutions and its fully connected
layers; at S = 384 from its own weights of S = 256, at a tenth of the rate; with jitter from those
of S = 384, all layers, at that smaller rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prototxt_gen.errors import ProtoError
from prototxt_gen.vgg import initial_net_for
from runtime.paper.published import JITTER, Scale, rows, run_name, scale_name

SCALES: tuple[Scale, ...] = (256, 384, JITTER)
"""In the order in which one starts from the other."""
FINE_TUNING_RATE = 0.1
"""The paper's 1e-3 over its 1e-2."""


@dataclass(frozen=True)
class Step:
    """One training run, in the paper's scales."""

    net: str
    scale: Scale
    start: str | None = None
    """The run whose weights it starts from."""
    layers: tuple[str, ...] = ()
    """The layers taken from there; empty for all."""

    @property
    def name(self) -> str:
        return run_name(self.net, self.scale)

    @property
    def rate(self) -> float:
        """What the first learning rate of training from scratch is multiplied by."""
        return FINE_TUNING_RATE if self.kind == "fine-tuned" else 1.0

    @property
    def kind(self) -> str:
        """Which of the paper's kinds of training it is."""
        if self.start is None:
            return "from scratch"
        return "from net A" if self.layers else "fine-tuned"

    def describe(self) -> str:
        """The step in words."""
        if self.start is None:
            return f"{self.name}: from random weights"
        what = f"{', '.join(self.layers)} of" if self.layers else "all layers of"
        rate = ", a tenth of the rate" if self.rate != 1.0 else ""
        return f"{self.name}: from {what} {self.start}{rate}"


def parse_scale(words: str) -> Scale:
    """Read 256, 384 or 256-512.

    Raises:
        ProtoError: the paper trains at no such scale.
    """
    known = {scale_name(scale): scale for scale in SCALES}
    if words not in known:
        raise ProtoError(
            f"--scales: the paper trains at {', '.join(known)}; expected one of them, got "
            f"{words!r}; for scales of your own use `verydeep prototxt` and `verydeep train`"
        )
    return known[words]


def steps_to(net: str, scale: Scale) -> list[Step]:
    """All runs that lead to a net at a scale, in order; the last is the one asked for."""
    found = []
    initial = initial_net_for(net)
    if initial is not None:
        found = steps_to(initial.net, SCALES[0])
        found.append(Step(net, SCALES[0], found[-1].name, initial.layers))
    else:
        found.append(Step(net, SCALES[0]))
    for each in SCALES[1 : SCALES.index(scale) + 1]:
        found.append(Step(net, each, found[-1].name))
    return found


def steps_for_tables(tables: Iterable[int]) -> list[Step]:
    """All runs that the rows of tables need, each once, in an order that works."""
    found: dict[str, Step] = {}
    for table in tables:
        for row in rows(table):
            for net in row.nets:
                found |= {step.name: step for step in steps_to(net.net, net.train)}
    return list(found.values())
