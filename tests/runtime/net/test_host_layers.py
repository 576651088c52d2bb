"""`host_only` is what the passes of a layer do on a device: blobs are copied, or they are not."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.analysis.summary import summarize
from runtime.analysis.summary_text import summary_text
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver_emulator import EmulatorDriver
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.layers.factory import class_of, layer_type_list
from runtime.net import Net
from tests.conformance.layer_case import Case
from tests.conformance.test_layers import CASES

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

SCALAR = 8
"""A loss is one number. Units: bytes."""


class CountingDriver(EmulatorDriver):
    """An emulator that lists the bytes of its copies between host and device."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.copies: list[int] = []

    def upload(self, host: Any, address: int, stream: Any = None) -> None:
        self.copies.append(host.nbytes)
        super().upload(host, address, stream)

    def download(self, address: int, host: Any, stream: Any = None) -> None:
        self.copies.append(host.nbytes)
        super().download(address, host, stream)

    def large_copies(self) -> list[int]:
        large = [size for size in self.copies if size > SCALAR]
        self.copies.clear()
        return large


def built(case: Case, backend: Any) -> Net:
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
    return Net(param, case.phase, backend, context)


def copies_of_a_pass(case: Case, driver: CountingDriver, net: Net) -> list[int]:
    """The sizes of the copies of a pass between layers on the device.

    Inputs that the case gives, such as labels, are on the host as well.
    """
    copies: list[int] = []
    for number in range(3):
        rng = np.random.default_rng(number)
        for i, shape in enumerate(case.bottoms):
            values = case.given.get(i, rng.uniform(case.low, case.high, shape))
            net.blobs[f"b{i}"].data.mutable_host()[...] = values
            if i in case.given:
                net.blobs[f"b{i}"].data.dev()
            else:
                net.blobs[f"b{i}"].data.mutable_dev()
        for i in range(case.tops):
            net.blobs[f"t{i}"].diff.mutable_dev()
        net.clear_param_diffs()
        driver.large_copies()
        net.forward()
        if net.layers[-1].is_loss or len(case.gradients) == len(case.bottoms):
            net.backward()
        for blob in [*net.bottoms[-1], *net.tops[-1]]:
            blob.data.dev()
            blob.diff.dev()
        copies = driver.large_copies()
    return copies


@pytest.mark.parametrize("case", [c for c in CASES if c.bottoms], ids=str)
def test_only_layers_on_the_host_copy_blobs(case: Case) -> None:
    driver = CountingDriver()
    with built(case, CudaBackend(driver, replay=False)) as net:
        copies = copies_of_a_pass(case, driver, net)
        layer = net.layers[-1]
        larger = max(blob.count() * 4 for blob in [*net.bottoms[-1], *net.tops[-1]]) > SCALAR
        assert bool(copies) == (layer.host_only and larger), (copies, layer.host_only)
    driver.close()


def numbers(case: Case, backend: Any) -> list[Any]:
    """Every blob and gradient of two passes."""
    results: list[Any] = []
    with built(case, backend) as net:
        for number in range(2):
            rng = np.random.default_rng(number)
            for i, shape in enumerate(case.bottoms):
                values = rng.uniform(case.low, case.high, shape)
                if case.distinct:
                    values = rng.permutation(values.size).reshape(shape) * 0.1 + 0.03 * i
                net.blobs[f"b{i}"].data.mutable_host()[...] = case.given.get(i, values)
            net.clear_param_diffs()
            results.append(np.float32(net.forward()))
            for i in range(case.tops):
                if not net.layers[-1].loss_weights[i]:
                    diff = net.blobs[f"t{i}"].diff.mutable_host()
                    diff[...] = rng.standard_normal(diff.shape)
            if net.layers[-1].is_loss or len(case.gradients) == len(case.bottoms):
                net.backward()
            kept = [*net.blobs.values(), *net.params.learnable]
            results += [blob.data.host().copy() for blob in kept]
            results += [blob.diff.host().copy() for blob in kept]
    return results


@pytest.mark.parametrize("case", [c for c in CASES if c.bottoms], ids=str)
def test_a_device_gives_the_numbers_of_the_host(case: Case) -> None:
    driver = EmulatorDriver()
    expected = numbers(case, create_backend("cpu", native=False, threads=1))
    for got, want in zip(numbers(case, CudaBackend(driver)), expected, strict=True):
        scale = max(1.0, float(np.abs(want).max(initial=0.0)))
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-5 * scale)
    driver.close()


def test_layers_without_bottoms_are_not_on_the_host() -> None:
    for kind in layer_type_list():
        if class_of(kind).num_bottom.high == 0:
            assert not class_of(kind).host_only


NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "boxes" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "boxes"
        roi_pooling_param { pooled_h: 2 pooled_w: 2 } }
"""  # noqa: E501 -- a line of a prototxt
ROIS = """
layer { name: "rois" type: "Input" top: "rois" input_param { shape { dim: 1 dim: 5 } } }
"""
PLAIN = NET[: NET.index('layer { name: "boxes"')]


def net_of(words: str, backend: Any) -> Net:
    return Net(text.parse(words, proto.NetParameter, "net"), proto.TEST, backend)


def test_one_warning_names_the_layers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "verydeep")
    expected = [
        "1 layer(s) compute on the host, so that their blobs are copied in each pass: "
        "boxes (ROIPooling)"
    ]
    for words, name, messages in (
        (ROIS + NET, "emu", expected),
        (PLAIN, "emu", []),
        (ROIS + NET, "cpu", []),
    ):
        caplog.clear()
        net_of(words, create_backend(name)).close()
        named = [text for text in caplog.messages if "compute on the host" in text]
        assert named == messages


def test_the_summary_has_a_column_for_them() -> None:
    cpu = create_backend("cpu")
    with net_of(ROIS + NET, cpu) as net:
        summary = summarize(net)
        assert {row.name: row.host_only for row in summary.rows} == {
            "rois": False, "data": False, "conv": False, "boxes": True
        }  # fmt: skip
        assert summary.as_dict()["layers"][3]["host_only"] is True
        lines = summary_text(summary).splitlines()
        assert lines[2].endswith("on a GPU")
        assert [line.split()[0] for line in lines if line.endswith("on host")] == ["boxes"]
    with net_of(PLAIN, cpu) as net:
        assert "on a GPU" not in summary_text(summarize(net))
