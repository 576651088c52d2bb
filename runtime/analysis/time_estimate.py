"""Estimate the time of a training step on N devices.

A step consists of the computation (divided by N), the addition of the gradients of the device's
shards and of those from other devices, the exchange of gradients and weights, and the update
(divided by N). The gradients of a layer are sent as soon as they are computed, so part of the
exchange takes place during the backward pass of the last shard. Replicas in host memory are faster
than estimated, as they exchange factors in place of most gradients (factors.py).
benchmarks/parallel.py compares the estimate for two replicas with a measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prototxt_gen.errors import ProtoError

LINKS = {"nvlink": 130.0, "pcie": 11.0, "ethernet-100g": 10.5, "ethernet-10g": 1.1}
"""Sustained GB/s that one device sends and at the same time receives."""

_BYTES = 4
_FLOPS = 6
"""Operations of a step per multiply-add of the forward pass: 2 forward and 4 backward."""
_UPDATE_ACCESSES = 5
"""Weights and history are read and written, and the gradient is read."""
_ADD_ACCESSES = 3
"""Two gradients are read and one is written."""

ASSUMPTIONS = {
    "flop_per_multiply_add": _FLOPS,
    "bytes_per_value": _BYTES,
    "update_accesses": _UPDATE_ACCESSES,
    "add_accesses": _ADD_ACCESSES,
}
"""The constants of the model, for output."""


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer."""

    multiply_adds: int
    """Multiply-adds in the forward pass of one image."""
    parameters: int


@dataclass(frozen=True)
class Machine:
    """Sustained speeds of one device and of its link.

    Units: tflops in 10^12 operations per second, memory_gbs and link_gbs in 10^9 bytes per second.
    """

    tflops: float
    memory_gbs: float
    link_gbs: float


@dataclass(frozen=True)
class StepPlan:
    """The cost of one step on one of the devices. Units: s, bytes_sent in bytes."""

    devices: int
    shards: int
    compute: float
    adds: float
    exchange: float
    update: float
    bytes_sent: int
    hidden: float
    """The part of the exchange that takes place during the backward pass."""
    alone: float
    """The time of the step on one device, in one shard."""

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
    """Estimate a step in which `devices` compute a batch in `shards` parts.

    Raises:
        ProtoError: `devices` does not divide `shards`, or `shards` does not divide `batch`.
    """
    if batch % shards or shards % devices:
        raise ProtoError(
            f"plan: a batch of {batch} in {shards} shards on {devices} devices; expected each "
            "number to divide the one before it; change --batch, --shards or --gpus"
        )
    flops, memory, link = machine.tflops * 1e12, machine.memory_gbs * 1e9, machine.link_gbs * 1e9
    compute = _FLOPS * sum(layer.multiply_adds for layer in layers) * batch / flops
    size = _BYTES * sum(layer.parameters for layer in layers)
    update = _UPDATE_ACCESSES * size / memory
    sent = 2 * size * (devices - 1) // devices
    return StepPlan(
        devices=devices,
        shards=shards,
        compute=compute / devices,
        adds=(shards // devices - 1 / devices) * _ADD_ACCESSES * size / memory,
        exchange=sent / link,
        update=update / devices,
        bytes_sent=sent,
        hidden=_hidden(layers, batch // shards, devices, flops, link),
        alone=compute + update,
    )


def _hidden(
    layers: Sequence[LayerCost], images: int, devices: int, flops: float, link: float
) -> float:
    """Seconds of the exchange that take place before the end of the last backward pass."""
    now = sent_until = total = 0.0
    for layer in reversed(layers):
        now += _FLOPS * 2 / 3 * layer.multiply_adds * images / flops
        sending = _BYTES * layer.parameters * (devices - 1) / devices / link
        sent_until = max(now, sent_until) + sending
        total += sending
    return total - max(0.0, sent_until - now)
