"""Channels of the blobs of nets without data or weights."""

from __future__ import annotations

import pytest

from prototxt_gen import proto, text
from prototxt_gen.proto import TEST, TRAIN, Message
from runtime.analysis.edge_channels import blob_channels
from tests.runtime.analysis.deep_nets import INPUT, chain, conv, data, inception, layer, pool


def net(prototxt: str) -> Message:
    return text.parse(prototxt, proto.NetParameter)


def test_layers_without_a_number_of_outputs_have_channels_too() -> None:
    counts = blob_channels(net(inception(2)), TEST)[TEST]
    assert counts["data", "data"] == 3
    assert counts["inception_0/output", "inception_0/output"] == 64 + 128 + 32 + 32
    assert counts["inception_1/pool", "inception_1/pool"] == 256
    assert counts["inception_1/proj/relu", "inception_1/proj"] == 32


def test_each_phase_has_its_own() -> None:
    counts = blob_channels(net(chain(2)), None)
    assert set(counts) == {TRAIN, TEST}
    assert counts[TRAIN]["conv2", "conv2"] == counts[TEST]["conv2", "conv2"] == 8
    assert blob_channels(net(chain(2)), TRAIN) == {TRAIN: counts[TRAIN]}


def test_what_depends_on_data_that_is_not_read_is_left_out() -> None:
    """A database is not opened; its images may have 1, 3 or more channels."""
    prototxt = data() + pool("pool", "data") + conv("conv", "pool", 5, 3, relu=False)
    prototxt += layer("both", "Concat", "pool conv") + layer("flat", "Flatten", "conv")
    prototxt += layer("fc", "InnerProduct", "flat", "inner_product_param { num_output: 7 }")
    assert blob_channels(net(prototxt), TRAIN)[TRAIN] == {("conv", "conv"): 5, ("fc", "fc"): 7}


@pytest.mark.parametrize(
    "prototxt",
    [
        "",
        layer("odd", "NoSuchType", "data"),
        layer("odd", "ReLU", "missing"),
        'layer { name: "python" type: "Python" top: "x" python_param { module: "m" layer: "L" } }',
        'layer { name: "h5" type: "HDF5Data" top: "x" hdf5_data_param { source: "none" } }',
        INPUT + conv("large", "data", 4, 999, relu=False).replace("pad: 499", "pad: 0"),
    ],
)
def test_nets_that_cannot_be_built_have_none(prototxt: str) -> None:
    assert blob_channels(net(prototxt), None) == {TRAIN: {}, TEST: {}}
