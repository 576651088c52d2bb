"""Every row of the layers' conformance table gives the same bits with and without replay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.native_library import why_not
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net, replay
from tests.conformance.layer_case import Case
from tests.conformance.test_layers import CASES

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")


def built(case: Case, on: bool) -> Net:
    """A net of an Input for each bottom and the layer."""
    lines = ["force_backward: true"] if case.gradients else []
    for i, shape in enumerate(case.bottoms):
        dims = " ".join(f"dim: {size}" for size in shape)
        lines.append(
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    blobs = "".join(f' bottom: "b{i}"' for i in range(len(case.bottoms)))
    blobs += "".join(f' top: "t{i}"' for i in range(case.tops))
    lines.append(f'layer {{ name: "x"{blobs} {case.layer} }}')
    param = text.parse("\n".join(lines), proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    return Net(param, case.phase, CpuBackend(threads=1, replay=on), context)


def results(case: Case, on: bool) -> tuple[list[bytes], int]:
    """Every blob and gradient of passes with different inputs, and the number of replays."""
    arrays: list[bytes] = []
    with built(case, on) as net:
        for number in range(8):
            rng = np.random.default_rng(number)
            for i, shape in enumerate(case.bottoms):
                values = case.given.get(i, rng.uniform(case.low, case.high, shape))
                net.blobs[f"b{i}"].data.mutable_host()[...] = values
            net.clear_param_diffs()
            arrays.append(np.float64(net.forward()).tobytes())
            for i in range(case.tops):
                top = net.blobs[f"t{i}"]
                if not net.layers[-1].loss_weights[i]:
                    top.diff.mutable_host()[...] = rng.standard_normal(top.shape)
            if net.layers[-1].is_loss or len(case.gradients) == len(case.bottoms):
                net.backward()
            kept = [*net.blobs.values(), *net.params.learnable]
            arrays += [
                memory.host().tobytes() for blob in kept for memory in (blob.data, blob.diff)
            ]
        recorder: Any = net.backend.recorder
        return arrays, recorder.replays if recorder is not None else 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_gives_the_same_bits(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_MIN_CALLS", 1)
    replayed, count = results(case, True)
    assert replayed == results(case, False)[0]
    if 'type: "Convolution"' in case.layer or 'type: "InnerProduct"' in case.layer:
        assert count > 0
