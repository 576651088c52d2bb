"""Every layer type: what it computes by its definition, and its gradient by differences.

One row a case. The net has an Input for each bottom and the one layer; the definition is an
independent line of numpy in float64.
"""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net
from tests.conformance import (
    layer_cases_dialects,
    layer_cases_loss,
    layer_cases_pointwise,
    layer_cases_recurrent,
    layer_cases_spatial,
)
from tests.conformance.layer_case import Case
from tests.oracle.gradcheck import check_gradient

CASES = [
    *layer_cases_pointwise.CASES,
    *layer_cases_spatial.CASES,
    *layer_cases_loss.CASES,
    *layer_cases_dialects.CASES,
    *layer_cases_recurrent.CASES,
]


def build(case: Case, phase: int | None = None) -> Net:
    """The case's net in float64, its inputs filled."""
    rng = np.random.default_rng(5)
    lines = ["force_backward: true"]
    for i, shape in enumerate(case.bottoms):
        dims = " ".join(f"dim: {d}" for d in shape)
        lines.append(
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    wires = "".join(f' bottom: "b{i}"' for i in range(len(case.bottoms)))
    wires += "".join(f' top: "t{i}"' for i in range(case.tops))
    lines.append(f'layer {{ name: "x"{wires} {case.layer} }}')
    param = text.parse("\n".join(lines), proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    net = Net(param, case.phase, create_backend("cpu", dtype=np.float64), context)
    for i, shape in enumerate(case.bottoms):
        count = int(np.prod(shape))
        values = rng.uniform(case.low, case.high, shape)
        if case.distinct:
            values = rng.permutation(count).reshape(shape) * 0.1 + 0.03 * i
        net.blobs[f"b{i}"].data.mutable_host()[...] = case.given.get(i, values)
    return net


def run(net: Net) -> None:
    net.context.pass_number = 0  # the same dropout mask each time
    net.forward()


@pytest.mark.parametrize("case", [c for c in CASES if c.expect], ids=str)
def test_forward_is_the_definition(case: Case) -> None:
    assert case.expect is not None
    with build(case) as net:
        run(net)
        inputs = [net.blobs[f"b{i}"].data.host().copy() for i in range(len(case.bottoms))]
        wanted = case.expect(*inputs)
        for i, want in enumerate(wanted if case.tops > 1 else [wanted]):
            got = net.blobs[f"t{i}"].data.host()
            # The runtime reads parameters as float32, as the prototxt stores them.
            np.testing.assert_allclose(
                got, np.asarray(want).reshape(got.shape), rtol=2e-7, atol=2e-7
            )


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.gradients or "Embed" in c.layer or "Parameter" in c.layer],
    ids=str,
)
def test_gradient_is_the_slope(case: Case) -> None:
    with build(case) as net:
        run(net)
        rng = np.random.default_rng(8)
        tops = [net.blobs[f"t{i}"] for i in range(case.tops)]
        layer = net.layer_by_name("x")
        assert layer is not None
        seeds = [rng.uniform(-1, 1, blob.shape) for blob in tops]

        def objective() -> float:
            run(net)
            return float(sum((s * b.data.host()).sum() for s, b in zip(seeds, tops)))

        checked = {f"bottom {i}": net.blobs[f"b{i}"] for i in case.gradients}
        learnt = [spec.lr_mult != 0 for spec in layer.param.param]
        for i, blob in enumerate(layer.blobs):
            if i >= len(learnt) or learnt[i]:
                checked[f"weight {i}"] = blob
        values = {what: blob.data.host().copy() for what, blob in checked.items()}
        net.clear_param_diffs()
        for seed, blob in zip(seeds, tops):
            blob.diff.mutable_host()[...] = seed
        net.bottom_need_backward[-1] = [i in case.gradients for i in range(len(case.bottoms))]
        run(net)
        net.backward()
        slopes = {what: blob.diff.host().copy() for what, blob in checked.items()}
        for what, blob in checked.items():
            x = blob.data.mutable_host()
            check_gradient(f"{case}: {what}", objective, x, slopes[what], step=1e-5, kink=case.kink)
            np.testing.assert_array_equal(x, values[what])


def test_every_layer_type_has_a_row_or_a_test_of_its_own() -> None:
    from runtime.layers.factory import layer_type_list

    elsewhere = {"Data", "ImageData", "HDF5Data", "HDF5Output", "MemoryData", "Python", "Input"}
    elsewhere |= {"YoloDetectionOutput", "Yolov3DetectionOutput"}
    rows = {case.layer.split('"')[1] for case in CASES}
    assert set(layer_type_list()) - rows == elsewhere


def test_gradients_of_weights_add_up_over_passes() -> None:
    case = next(c for c in CASES if str(c) == "Convolution")
    with build(case) as net:
        layer = net.layer_by_name("x")
        assert layer is not None
        run(net)
        net.blobs["t0"].diff.mutable_host()[...] = 1.0
        net.backward()
        once = [blob.diff.host().copy() for blob in layer.blobs]
        net.backward()
        for first, blob in zip(once, layer.blobs):
            np.testing.assert_allclose(blob.diff.host(), 2 * first)


IN_PLACE = [
    "ReLU",
    "Sigmoid",
    "TanH",
    "ELU",
    "PReLU",
    "Scale",
    "Bias",
    "Dropout",
    "Softmax",
    "BatchNorm",
    "BN",
    "ReLU6",
]


@pytest.mark.parametrize("kind", IN_PLACE)
def test_in_place_gives_what_two_blobs_give(kind: str) -> None:
    case = next(c for c in CASES if c.layer.split('"')[1] == kind and len(c.bottoms) == 1)
    rng = np.random.default_rng(9)
    results = []
    seed = rng.uniform(-1, 1, case.bottoms[0])
    for in_place in (False, True):
        with build(case) as net:
            if in_place:
                net.tops[-1][0] = net.bottoms[-1][0]
                net.blobs["t0"] = net.bottoms[-1][0]
            run(net)
            y = net.blobs["t0"].data.host().copy()
            net.blobs["t0"].diff.mutable_host()[...] = seed
            net.backward()
            results.append(
                [
                    y,
                    net.bottoms[-1][0].diff.host().copy(),
                    *(b.diff.host().copy() for b in net.layers[-1].blobs),
                ]
            )
    for two, one in zip(*results):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)
