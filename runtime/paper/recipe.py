"""The sequence of training runs behind each net of the paper. Paper: section 3.1.

Net A is trained first. A deeper net starts from the first four convolutions and the
fully-connected layers of net A. At S = 384 it starts from its own weights of S = 256, at a tenth of
the learning rate; with scale jitter, it starts from all layers of S = 384 at that lower rate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prototxt_gen.errors import ProtoError
from prototxt_gen.vgg import INITIAL_NET, initial_net_for

Scale = int | tuple[int, int]
"""A training scale S, or the range from which it is drawn."""
JITTER = (256, 512)
SCALES: tuple[Scale, ...] = (256, 384, JITTER)
"""Each run starts from the run of the preceding scale."""
FINE_TUNING_RATE = 0.1
"""The paper's 1e-3 divided by its 1e-2."""

CONTROLS = {"A2": "A", "B-scratch": "B"}
"""Runs that the paper lacks, by the net that they train.

A2 is net A restarted from net A with the layers, the rate and the iterations of nets B to E: their
differences from A2 do not contain the further training. B-scratch is net B from random weights, as
B-shallow is trained.
"""


def scale_name(scale: Scale) -> str:
    """Return `256` or `256-512`, the form of --scales."""
    return f"{scale[0]}-{scale[1]}" if isinstance(scale, tuple) else str(scale)


def run_name(net: str, train: Scale) -> str:
    """Return `D-256` or `D-256-512`."""
    return f"{net}-{scale_name(train)}"


@dataclass(frozen=True)
class Step:
    """One training run. Units: `scale` in pixels of the paper."""

    net: str
    scale: Scale
    start: str | None = None
    """The run that provides the initial weights."""
    layers: tuple[str, ...] = ()
    """The layers that are copied from it; empty for all."""

    @property
    def name(self) -> str:
        """The name of the run."""
        return run_name(self.net, self.scale)

    @property
    def architecture(self) -> str:
        """The net of the paper that is trained."""
        return CONTROLS.get(self.net, self.net)

    @property
    def rate(self) -> float:
        """The factor of the initial learning rate of training from scratch."""
        return FINE_TUNING_RATE if self.kind == "fine-tuned" else 1.0

    @property
    def kind(self) -> str:
        """The kind of training: from scratch, from net A, or fine-tuned."""
        if self.start is None:
            return "from scratch"
        return "from net A" if self.layers else "fine-tuned"

    def describe(self) -> str:
        """Return the step in words."""
        if self.start is None:
            return f"{self.name}: from random weights"
        layers = f"{', '.join(self.layers)} of" if self.layers else "all layers of"
        rate = ", a tenth of the rate" if self.rate != 1.0 else ""
        return f"{self.name}: from {layers} {self.start}{rate}"


def parse_scale(words: str) -> Scale:
    """Parse 256, 384 or 256-512.

    Raises:
        ProtoError: the paper does not train at that scale.
    """
    scales = {scale_name(scale): scale for scale in SCALES}
    if words not in scales:
        raise ProtoError(
            f"--scales: the paper trains at {', '.join(scales)}; expected one of them, got "
            f"{words!r}; for other scales use `verydeep prototxt` and `verydeep train`"
        )
    return scales[words]


def steps_to(net: str, scale: Scale) -> list[Step]:
    """Return the runs that lead to a net at a scale, in order; its own run is the last."""
    initial = INITIAL_NET if net == "A2" else initial_net_for(net)
    if initial is None:
        steps = [Step(net, SCALES[0])]
    else:
        steps = steps_to(initial.net, SCALES[0])
        steps.append(Step(net, SCALES[0], steps[-1].name, initial.layers))
    for next_scale in SCALES[1 : SCALES.index(scale) + 1]:
        steps.append(Step(net, next_scale, steps[-1].name))
    return steps


def steps_for(nets: Iterable[tuple[str, Scale]]) -> list[Step]:
    """Return the runs that lead to several nets, each once, after the run that it starts from."""
    steps: dict[str, Step] = {}
    for net, scale in nets:
        steps |= {step.name: step for step in steps_to(net, scale)}
    return list(steps.values())
