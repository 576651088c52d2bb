"""The updates of every solver type on a device: those of NumPy, without copies of weights."""

from __future__ import annotations

import itertools
import shutil
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.registry import create_backend
from runtime.core.synced_memory import SyncedMemory
from runtime.solvers.update_rule import ParamSlot, UpdateRule, create_rule, solver_types
from tests.runtime.net.replayed import same, trained, weights

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

MOMENTUM = {"SGD", "Nesterov", "AdaDelta", "Adam"}
"""The types that allow a momentum."""
COUNTS = (1, 5, 1025)


class CopyingDriver(EmulatorDriver):
    """An emulator that counts its copies between host and device."""

    copies = 0

    def upload(self, host: Any, address: int, stream: Any = None) -> None:
        self.copies += 1
        super().upload(host, address, stream)

    def download(self, address: int, host: Any, stream: Any = None) -> None:
        self.copies += 1
        super().download(address, host, stream)


def rule_of(kind: str, penalty: str, backend: Any) -> UpdateRule:
    param = proto.SolverParameter(type=kind, weight_decay=0.01, regularization_type=penalty)
    if kind in MOMENTUM:
        param.momentum = 0.9
    return create_rule(param, backend)


def slot_of(backend: Any, count: int, histories: int, decay: float) -> ParamSlot:
    rng = np.random.default_rng(count)
    memories = []
    for number in range(2 + histories):
        memory = SyncedMemory(backend)
        memory.reshape((count,))
        values = rng.standard_normal(count)
        if number == 0:
            values[: count // 3] = 0.0
        memory.mutable_host()[...] = values if number < 2 else 0.1 * values * values
        memories.append(memory)
    data, diff, *history = memories
    return ParamSlot("w", data, diff, history, 2.0, decay)


def updated(
    kind: str, penalty: str, backend: Any, count: int, decay: float, keep: bool
) -> list[Any]:
    rule = rule_of(kind, penalty, backend)
    rule.leaves_update = keep
    slot = slot_of(backend, count, rule.histories, decay)
    gradient = slot.diff.host().copy()
    results = []
    for iteration in range(3):
        slot.diff.mutable_host()[...] = gradient * (1 + iteration)
        rule.update(slot, 0.1 / (1 + iteration), iteration)
        results += [memory.host().copy() for memory in (slot.data, *slot.history)]
        results += [slot.diff.host().copy()] if keep else []
    return results


@pytest.mark.parametrize("kind", solver_types())
def test_an_update_is_that_of_numpy(kind: str) -> None:
    """They differ by fused multiply-adds alone."""
    cpu = create_backend("cpu", native=False, threads=1)
    driver = EmulatorDriver()
    backend = CudaBackend(driver)
    cases = itertools.product(COUNTS, ("L1", "L2"), (0.0, 1.0), (True, False))
    for count, penalty, decay, keep in cases:
        expected = updated(kind, penalty, cpu, count, decay, keep)
        results = updated(kind, penalty, backend, count, decay, keep)
        for got, want in zip(results, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-6, atol=3e-7)
    driver.close()


@pytest.mark.parametrize("penalty", ["L1", "L2"])
@pytest.mark.parametrize("kind", solver_types())
def test_an_update_copies_nothing_to_the_host(kind: str, penalty: str) -> None:
    driver = CopyingDriver()
    backend = CudaBackend(driver)
    rule = rule_of(kind, penalty, backend)
    assert rule.only_ops
    slot = slot_of(backend, 100, rule.histories, 1.0)
    for memory in (slot.data, slot.diff, *slot.history):
        memory.dev()
    driver.copies = 0
    for iteration in range(3):
        rule.update(slot, 0.1, iteration)
    assert driver.copies == 0
    driver.close()


def test_a_subclass_that_computes_otherwise_has_no_kernel() -> None:
    for kind in solver_types():
        cls = type(rule_of(kind, "L2", create_backend("cpu")))
        own = type("Own", (cls,), {})
        assert issubclass(own, UpdateRule) and own.kernel == ""
        assert not create_rule(proto.SolverParameter(type=kind), create_backend("cpu")).kernel or (
            not rule_of(kind, "L2", create_backend("cpu")).only_ops
        )


@pytest.mark.parametrize("kind", sorted(set(solver_types()) - {"SGD"}))
def test_replayed_updates_have_the_same_bits(kind: str) -> None:
    """The rates change in each iteration; replays read them from the device."""
    momentum = "momentum: 0.9" if kind in MOMENTUM else "momentum: 0"
    settings = f'type: "{kind}" lr_policy: "poly" power: 1 {momentum}'
    replayed, plain = (trained("emu", settings, replay=on) for on in (True, False))
    assert same(weights(replayed), weights(plain))
    engine: Any = replayed.engine
    assert engine._replay._segments[0].replays >= 6
