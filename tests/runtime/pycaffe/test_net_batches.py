"""forward_all and forward_backward_all: the same numbers, however many batches it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY


@pytest.fixture
def net(write: Write) -> caffe.Net:
    return caffe.Net(write("force_backward: true" + DEPLOY), caffe.TEST)


def images(count: int) -> Any:
    return np.random.default_rng(count).normal(size=(count, 3, 6, 8)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_any_number_of_images(net: caffe.Net, count: int) -> None:
    x = images(count)
    result = net.forward_all(blobs=["score"], data=x)
    assert sorted(result) == ["prob", "score"]
    weight, bias = (blob.data for blob in net.params["ip"])
    np.testing.assert_allclose(
        result["score"], x.reshape(count, -1) @ weight.T + bias, rtol=1e-4, atol=1e-5
    )
    assert result["prob"].shape == (count, 5)
    result["prob"][...] = 0
    assert net.blobs["prob"].data.any()


@pytest.mark.parametrize("count", [4, 7])
def test_gradients_of_any_number_of_images(net: caffe.Net, count: int) -> None:
    x, dy = images(count), np.random.default_rng(9).normal(size=(count, 5)).astype(np.float32)
    outs, diffs = net.forward_backward_all(diffs=["score"], data=x, prob=dy)
    assert (outs["prob"].shape, diffs["data"].shape) == ((count, 5), x.shape)
    y = outs["prob"]
    dscore = (dy - (dy * y).sum(axis=1, keepdims=True)) * y
    np.testing.assert_allclose(diffs["score"], dscore, rtol=1e-3, atol=1e-6)


def test_a_loss_counts_as_one_row_a_batch(write: Write) -> None:
    net = caffe.Net(
        write(
            """layer { name: "i" type: "Input" top: "data" input_param { shape { dim: [2, 3] } } }
            layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" }"""
        ),
        caffe.TEST,
    )
    result = net.forward_all(data=np.ones((5, 3), np.float32))
    assert result["sum"].tolist() == [6, 6, 3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net: net.forward_all(), "forward_all: expected at least one array.*got none"),
        (
            lambda net: net.forward_backward_all(data=images(2), prob=np.zeros((3, 5))),
            r"as many images in each; got \{'data': 2, 'prob': 3\}",
        ),
        (
            lambda net: net.forward_backward_all(score=np.zeros((3, 5))),
            r"expected inputs and outputs of the net \(data, prob\), got score",
        ),
    ],
)
def test_arrays_that_do_not_fit(net: caffe.Net, call: Any, words: str) -> None:
    with pytest.raises(Exception, match=words):
        call(net)
