"""Fillers, nets without them, and draws that are postponed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ShapeError, VerydeepError
from runtime.backend.registry import create_backend
from runtime.core.blob import Blob
from runtime.core.context import RunContext
from runtime.core.filler import RANDOM, fill
from runtime.core.rng import CaffeRandom
from runtime.net.fillers import without_fillers

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


def test_without_fillers() -> None:
    net = text.parse(NET, proto.NetParameter)
    bare = without_fillers(net)
    assert not bare.layer[0].inner_product_param.HasField("weight_filler")
    assert not bare.layer[0].inner_product_param.HasField("bias_filler")
    assert bare.layer[0].inner_product_param.num_output == 2
    assert not bare.layer[1].scale_param.HasField("filler") and bare.layer[1].scale_param.bias_term
    assert len(bare.layer[3].dummy_data_param.data_filler) == 2
    assert net.layer[0].inner_product_param.HasField("weight_filler")


@pytest.mark.parametrize("name", [*sorted(RANDOM), "constant", "bilinear"])
def test_the_random_ones_are_those_that_draw(name: str) -> None:
    context = RunContext(rng=CaffeRandom(5))
    blob = Blob(create_backend("cpu"), (2, 2, 3, 3), "weight")
    fill(blob, proto.FillerParameter(type=name), context, "here")
    drew = context.rng.uniform(1, 0, 1) != CaffeRandom(5).uniform(1, 0, 1)
    assert bool(drew) is (name in RANDOM)


def filled(shape: tuple[int, ...], **fields: Any) -> list[float]:
    blob = Blob(create_backend("cpu"), shape, "weight")
    fill(blob, proto.FillerParameter(**fields), RunContext(rng=CaffeRandom(5)), "layer 'x'")
    return [float(value) for value in blob.data.host().ravel()]


@pytest.mark.parametrize(
    ("shape", "fields", "complaint"),
    [
        ((2,), {"type": "he"}, "unknown filler type 'he'; expected one of bilinear, constant"),
        (
            (2,),
            {"type": "xavier", "sparse": 1},
            "sparse applies to the gaussian filler only, got 'xavier'",
        ),
        (
            (2, 5),
            {"type": "gaussian", "sparse": 3},
            r"sparse is out of range; expected -1 or at most the 2 outputs of shape \(2, 5\), got",
        ),
        ((), {"type": "gaussian", "sparse": 1}, "at most the 0 outputs of shape"),
        ((2, 2, 3, 4), {"type": "bilinear"}, "4-D blob with square kernels, got shape"),
        ((2,), {"type": "uniform", "min": 1, "max": 0}, "no range for a uniform filler"),
    ],
)
def test_fillers_that_do_not_suit(
    shape: tuple[int, ...], fields: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(VerydeepError, match=complaint):
        filled(shape, **fields)


@pytest.mark.parametrize("name", [*sorted(RANDOM), "constant", "bilinear"])
def test_there_is_something_to_fill(name: str) -> None:
    for shape in ((0,), (0, 2, 3, 3), (2, 0, 3, 3)):
        with pytest.raises(ShapeError, match=f"layer 'x': the {name} filler has no element to fi"):
            filled(shape, type=name)


def test_equal_bounds_give_a_constant() -> None:
    for value in (0.0, 0.5, -3.0, 1e30):
        assert filled((3,), type="uniform", min=value, max=value) == [np.float32(value)] * 3


def test_a_blob_without_axes_counts_as_one_output_of_one_input() -> None:
    """Caffe's num and channels are 1 there."""
    (xavier,) = filled((), type="xavier")
    assert xavier == np.float32(CaffeRandom(5).uniform(1, -(3**0.5), 3**0.5)[0])
    assert filled((), type="positive_unitball") == [1.0]
    assert len(filled((), type="msra", variance_norm="FAN_OUT")) == 1
