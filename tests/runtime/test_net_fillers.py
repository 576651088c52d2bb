"""Which layers begin as random numbers, and nets without fillers."""

from __future__ import annotations

import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.blob import Blob
from runtime.context import RunContext
from runtime.filler import RANDOM, fill
from runtime.net_fillers import draws_when_made, draws_when_run, without_fillers
from runtime.rng import CaffeRandom

NET = """
layer { name: "a" type: "InnerProduct"
  inner_product_param { num_output: 2 weight_filler { type: "xavier" }
    bias_filler { type: "constant" value: 1 } } }
layer { name: "b" type: "Scale" scale_param { filler { type: "uniform" } bias_term: true } }
layer { name: "c" type: "Convolution"
  convolution_param { num_output: 2 weight_filler { type: "bilinear" } } }
layer { name: "d" type: "DummyData" dummy_data_param { data_filler { type: "constant" }
  data_filler { type: "gaussian" } } }
layer { name: "e" type: "ReLU" }
"""


def test_who_draws() -> None:
    layers = text.parse(NET, proto.NetParameter).layer
    assert [draws_when_made(layer) for layer in layers] == [True, True, False, False, False]
    assert [draws_when_run(layer) for layer in layers] == [False, False, False, True, False]


def test_without_fillers() -> None:
    net = text.parse(NET, proto.NetParameter)
    bare = without_fillers(net)
    assert not bare.layer[0].inner_product_param.HasField("weight_filler")
    assert not bare.layer[0].inner_product_param.HasField("bias_filler")
    assert bare.layer[0].inner_product_param.num_output == 2
    assert not bare.layer[1].scale_param.HasField("filler") and bare.layer[1].scale_param.bias_term
    assert len(bare.layer[3].dummy_data_param.data_filler) == 2
    some = without_fillers(net, ["b"])
    assert some.layer[0] == net.layer[0] and some.layer[1] == bare.layer[1]
    assert net.layer[0].inner_product_param.HasField("weight_filler")


@pytest.mark.parametrize("name", [*sorted(RANDOM), "constant", "bilinear"])
def test_the_random_ones_are_those_that_draw(name: str) -> None:
    context = RunContext(rng=CaffeRandom(5))
    blob = Blob(create_backend("cpu"), (2, 2, 3, 3), "weight")
    fill(blob, proto.FillerParameter(type=name), context, "here")
    drew = context.rng.uniform(1, 0, 1) != CaffeRandom(5).uniform(1, 0, 1)
    assert bool(drew) is (name in RANDOM)
