"""Classifier: its crops and its means of their probabilities, compared with the net."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY


@pytest.fixture
def weights(write: Write) -> str:
    caffe.Net(write(DEPLOY), caffe.TEST).save("w.caffemodel")
    return "w.caffemodel"


def images(*sizes: tuple[int, int]) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.uniform(size=(*size, 3)).astype(np.float32) for size in sizes]


def test_the_centre_crop(write: Write, weights: str) -> None:
    mean = np.array([20.0, 30.0, 40.0])
    made = caffe.Classifier(
        write(DEPLOY), weights, (8, 12), mean, raw_scale=255, channel_swap=(2, 1, 0)
    )
    assert made.params["ip"][0].data.any()
    given = images((8, 12), (8, 12), (8, 12), (8, 12), (8, 12), (16, 20))
    result = made.predict(given, oversample=False)
    assert result.shape == (6, 5)
    centre = given[1][1:7, 2:10, ::-1].transpose(2, 0, 1) * 255 - mean[:, None, None]
    alone = made.forward_all(data=centre[None])["prob"]
    np.testing.assert_allclose(result[1], alone[0], rtol=1e-4)
    assert result.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_ten_crops(write: Write, weights: str) -> None:
    made = caffe.Classifier(write(DEPLOY), weights, image_dims=(8, 12), input_scale=2)
    given = images((8, 12), (8, 12))
    crops = caffe.io.oversample(given, (6, 8))
    each = made.forward_all(data=2 * crops.transpose(0, 3, 1, 2))["prob"]
    result = made.predict(given)
    np.testing.assert_allclose(result, each.reshape(2, 10, 5).mean(axis=1), rtol=1e-4)


def test_without_image_dims_images_are_resized_to_the_input(write: Write, weights: str) -> None:
    made = caffe.Classifier(write(DEPLOY), weights)
    assert tuple(made.image_dims) == tuple(made.crop_dims) == (6, 8)
    given = images((9, 9))
    resized = caffe.io.resize_image(given[0], (6, 8)).transpose(2, 0, 1)
    expected = made.forward_all(data=resized[None])["prob"]
    np.testing.assert_allclose(made.predict(given, oversample=False), expected, rtol=1e-5)


def test_a_classifier_is_a_net(write: Write, weights: str) -> None:
    made = caffe.Classifier(write(DEPLOY), weights)
    assert isinstance(made, caffe.Net)
    assert made.transformer.inputs == {"data": (4, 3, 6, 8)}


@pytest.mark.parametrize(
    ("net", "dims", "given", "words"),
    [
        (DEPLOY.replace("dim: 6 dim: 8", "dim: 48"), None, [(6, 8)], "an input of 4 axes, .* got"),
        ('layer { name: "x" type: "DummyData" top: "x" }', None, [(6, 8)], "DummyData|4 axes"),
        (DEPLOY, (4, 12), [(9, 9)], r"image_dims \(4, 12\) are smaller than .* \(6, 8\)"),
        (DEPLOY, None, [], "no images; expected at least one"),
    ],
)
def test_nets_and_images_that_do_not_fit(
    write: Write, net: str, dims: Any, given: Any, words: str
) -> None:
    with pytest.raises(Exception, match=words):
        caffe.Classifier(write(net), None, dims).predict(images(*given), oversample=False)
