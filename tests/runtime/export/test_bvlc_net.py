"""Layers of other builds of Caffe as layers of BVLC Caffe: the same results, nothing left over."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.dialects import refusals
from prototxt_gen.errors import SnapshotError, UnsupportedError
from runtime.export.bvlc_net import bvlc_net
from runtime.layers.axpy import AxpyLayer
from tests.runtime.export.test_onnx_model import net_of
from tests.runtime.small_net import build

LAYERS = {
    "ceil_mode": (
        "Pooling(pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }) x -> y",
        ["Pooling"],
    ),
    "ceil_mode_on": (
        "Pooling(pooling_param { kernel_size: 2 stride: 2 ceil_mode: true }) x -> y",
        ["Pooling"],
    ),
    "depthwise": (
        "DepthwiseConvolution(convolution_param { kernel_size: 3 pad: 1 }) x -> y",
        ["Convolution"],
    ),
    "depthwise_no_bias": (
        "ConvolutionDepthwise(convolution_param { kernel_size: 3 bias_term: false }) x -> y",
        ["Convolution"],
    ),
    "bn": ("BN(bn_param { momentum: 0.9 eps: 0.1 }) x -> y", ["BatchNorm", "Scale"]),
    "bn_frozen": ("BN(bn_param { frozen: true }) x -> y", ["BatchNorm", "Scale"]),
    "bn_decay": ("BN(bn_param { decay: 0.5 var_eps: 0.5 }) x -> y", ["BatchNorm", "Scale"]),
    "bn_learn": ("BN(bn_param { bn_mode: LEARN }) x -> y", ["BatchNorm", "Scale"]),
    "bn_inference": ("BN(bn_param { bn_mode: INFERENCE }) x -> y", ["Scale"]),
    "plain": ("InnerProduct(inner_product_param { num_output: 5 }) x -> y", ["InnerProduct"]),
}
SQUEEZE = (
    "Pooling(pooling_param { pool: AVE global_pooling: true }) x -> a",
    "Axpy() a x z -> y",
    "ReLU() y -> y",
)


def rewritten(prototxt: str) -> list[str]:
    """The types behind the inputs; the export itself compares the results."""
    param = text.parse(prototxt, proto.NetParameter)
    with build(prototxt, seed=7) as net:
        for blob in net.params.learnable:
            blob.data.mutable_host()[...] = np.abs(blob.data.host()) + 0.1
        result, plain = bvlc_net(net, param)
        with plain:
            assert plain.outputs == net.outputs
    assert refusals(result, "bvlc") == []
    return [layer.type for layer in result.layer if layer.type != "Input"]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_rewritten(name: str) -> None:
    layer, types = LAYERS[name]
    assert rewritten(net_of(layer)) == types


def test_axpy_becomes_scale_and_eltwise() -> None:
    types = rewritten(net_of(*SQUEEZE, second=True))
    assert types == ["Pooling", "Flatten", "Scale", "Eltwise", "ReLU"]


def test_bn_in_place() -> None:
    assert rewritten(net_of("ReLU() x -> y", "BN(bn_param { momentum: 0.9 }) y -> y")) == [
        *("ReLU", "BatchNorm", "Scale")
    ]


def test_what_has_no_equivalent_is_listed_at_once() -> None:
    content = net_of("ReLU6() x -> r", "Flip() r -> y")
    param = text.parse(content, proto.NetParameter)
    with build(content) as net, pytest.raises(UnsupportedError) as error:
        bvlc_net(net, param)
    assert "(ReLU6): the layer type is unknown" in str(error.value)
    assert "(Flip): the layer type is unknown" in str(error.value)


def test_another_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = AxpyLayer.bvlc_form

    def wrong(layer: AxpyLayer, param: proto.Message) -> list[object]:
        forms = original(layer, param)
        forms[-1].param.eltwise_param.operation = proto.EltwiseParameter.MAX
        return [*forms]

    monkeypatch.setattr(AxpyLayer, "bvlc_form", wrong)
    with pytest.raises(SnapshotError, match="computes another blob 'y'; expected a difference"):
        rewritten(net_of(*SQUEEZE, second=True))
