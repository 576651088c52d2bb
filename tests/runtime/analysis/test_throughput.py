"""Rates of measured passes, against numbers by hand."""

from __future__ import annotations

from typing import Any

import pytest

from prototxt_gen import proto, text
from runtime.analysis.throughput import (
    gflop_per_s,
    rate_columns,
    throughput,
    throughput_lines,
    work_of,
)
from runtime.backend.registry import create_backend
from runtime.net import Net

NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 4 dim: 2 dim: 5 dim: 5 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fixed" type: "InnerProduct" bottom: "conv" top: "fixed"
  param { lr_mult: 0 } param { lr_mult: 0 } inner_product_param { num_output: 7 } }
layer { name: "fc" type: "InnerProduct" bottom: "fixed" top: "fc"
  inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
CONV = 4 * 3 * 2 * 9 * 9
FIXED, FC = 4 * 7 * 27, 4 * 5 * 7


def net_of(source: str) -> Net:
    param: Any = text.parse(source, proto.NetParameter)
    return Net(param, proto.TRAIN, create_backend("cpu"))


def test_the_work_of_layers() -> None:
    with net_of(NET) as net:
        names = [layer.param.name for layer in net.layers]
        work = dict(zip(names, work_of(net)))
    assert work["conv"] == (CONV, CONV)  # no gradient of the data
    assert work["fixed"] == (FIXED, FIXED)  # no gradient of the weights
    assert work["fc"] == (FC, 2 * FC)
    assert work["relu"] == (0, 0)


def test_rates() -> None:
    with net_of(NET) as net:
        rates = throughput(net, 2.0, 8.0)
        forward, backward = CONV + FIXED + FC, CONV + FIXED + 2 * FC
        assert rates.batch == 4
        assert rates.forward.images == pytest.approx(2000)
        assert rates.forward.gflop == pytest.approx(2 * forward / 2e-3 / 1e9)
        assert rates.backward is not None and rates.both is not None
        assert rates.backward.gflop == pytest.approx(2 * backward / 8e-3 / 1e9)
        assert rates.both.images == pytest.approx(400)
        assert rates.both.gflop == pytest.approx(2 * (forward + backward) / 10e-3 / 1e9)
        assert throughput_lines(rates)[:2] == [
            "batch size: 4",
            f"forward: 2000.0 images/s, {rates.forward.gflop:.2f} GFLOP/s",
        ]
        columns = rate_columns(net, [1e-3] * 7, [0.0] * 7)
        assert columns[2] == (f"{2 * CONV / 1e-6 / 1e9:.2f}", "") and columns[3] == ("", "")


def test_a_pass_that_was_not_run() -> None:
    with net_of(NET) as net:
        rates = throughput(net, 1.0, 0.0)
    assert rates.backward is None and rates.both is None
    assert rates.as_dict()["backward"] is None
    assert len(throughput_lines(rates)) == 3
    assert gflop_per_s(10, 0.0) == 0
