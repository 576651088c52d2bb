"""How long a training step takes on N devices: a model of a few lines, to plan with.

A step is compute (divided by N), the adding up of a device's own shards and of what the others
send, the exchange of gradients and weights, and the update (divided by N). Gradients are sent as
soon as a layer's are ready; `hidden` is what passes so within the backward pass of the last shard.
Replicas that compute in host memory do better: most of their gradients never travel (factors.py).
benchmarks/parallel.py sets what it says of two replicas beside what two replicas take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prototxt_gen.errors import ProtoError

LINKS = {"nvlink": 130.0, "pcie": 11.0, "ethernet-100g": 10.5, "ethernet-10g": 1.1}
"""GB/s that one device sends and, at the same time, receives: what is sustained, not the label."""

_BYTES = 4
_FLOPS = 6
"""Of a multiply-add of the forward pass: 2, and backward costs twice as much as forward."""
_UPDATE_TOUCHES = 5
"""Weights and history are read and written, the gradient is read."""
_ADD_TOUCHES = 3
"""Two gradients are read, one is written."""


@dataclass(frozen=True)
class LayerCost:
    """One layer that learns, or only computes."""

    multiply_adds: int
    """Of one image's forward pass."""
    parameters: int


@dataclass(frozen=True)
class Machine:
    """Sustained speeds of one device and of its link."""

    tflops: float
    memory_gbs: float
    link_gbs: float


@dataclass(frozen=True)
class StepPlan:
    """Seconds and bytes of one step on one of the devices."""

    devices: int
    shards: int
    compute: float
    adds: float
    exchange: float
    update: float
    bytes_sent: int
    hidden: float
    """Of the exchange, what passes during the backward pass."""
    alone: float
    """The same step on one device, in one shard."""

    @property
    def step(self) -> float:
        return self.compute + self.adds + self.exchange - self.hidden + self.update

    @property
    def speedup(self) -> float:
        return self.alone / self.step

    @property
    def speedup_without_overlap(self) -> float:
        return self.alone / (self.step + self.hidden)

    def as_dict(self) -> dict[str, Any]:
        derived = ("step", "speedup", "speedup_without_overlap")
        return asdict(self) | {key: getattr(self, key) for key in derived}


def plan_step(
    layers: Sequence[LayerCost], batch: int, devices: int, shards: int, machine: Machine
) -> StepPlan:
    """The time of a step in which `devices` share a batch, in `shards` parts.

    Raises:
        ProtoError: the batch does not divide.
    """
    if batch % shards or shards % devices:
        raise ProtoError(
            f"plan: a batch of {batch} in {shards} shards on {devices} devices; expected each to "
            "divide the one before it; change --batch, --shards or --gpus"
        )
    flops, memory, link = machine.tflops * 1e12, machine.memory_gbs * 1e9, machine.link_gbs * 1e9
    compute = _FLOPS * sum(layer.multiply_adds for layer in layers) * batch / flops
    size = _BYTES * sum(layer.parameters for layer in layers)
    update = _UPDATE_TOUCHES * size / memory
    sent = 2 * size * (devices - 1) // devices
    return StepPlan(
        devices=devices,
        shards=shards,
        compute=compute / devices,
        adds=(shards // devices - 1 / devices) * _ADD_TOUCHES * size / memory,
        exchange=sent / link,
        update=update / devices,
        bytes_sent=sent,
        hidden=_hidden(layers, batch // shards, devices, flops, link),
        alone=compute + update,
    )


def _hidden(
    layers: Sequence[LayerCost], images: int, devices: int, flops: float, link: float
) -> float:
    """Seconds of sending gradients that pass before the last shard's backward pass is over."""
    now = sent_until = total = 0.0
    for layer in reversed(layers):
        now += _FLOPS * 2 / 3 * layer.multiply_adds * images / flops
        sending = _BYTES * layer.parameters * (devices - 1) / devices / link
        sent_until = max(now, sent_until) + sending
        total += sending
    return total - max(0.0, sent_until - now)
