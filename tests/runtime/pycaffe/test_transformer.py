"""Transformer: each step by hand, in its order, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.pycaffe.image import resize_image
from runtime.pycaffe.transformer import Transformer


@pytest.fixture
def transformer() -> Transformer:
    made = Transformer({"data": (10, 3, 4, 5), "aux": (1, 2)})
    made.set_transpose("data", (2, 0, 1))
    return made


IMAGE = np.random.default_rng(0).uniform(size=(4, 5, 3)).astype(np.float32)


def test_all_steps_in_their_order(transformer: Transformer) -> None:
    kept = IMAGE.copy()
    mean = np.array([104.0, 117.0, 123.0])
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", mean)
    transformer.set_input_scale("data", 0.5)
    result = transformer.preprocess("data", IMAGE)
    assert (result.dtype, result.shape) == (np.float32, (3, 4, 5))
    for channel in range(3):
        expected = (IMAGE[:, :, 2 - channel] * 255 - mean[channel]) * 0.5
        np.testing.assert_allclose(result[channel], expected, rtol=1e-5, atol=1e-4)
    assert np.array_equal(IMAGE, kept)
    back = transformer.deprocess("data", result[None])
    np.testing.assert_allclose(back, IMAGE, atol=1e-6)


def test_the_transpose_alone(transformer: Transformer) -> None:
    assert np.array_equal(transformer.preprocess("data", IMAGE), IMAGE.transpose(2, 0, 1))
    assert np.array_equal(transformer.deprocess("data", IMAGE.transpose(2, 0, 1)), IMAGE)
    plain = Transformer({"data": (1, 3, 4, 5)})
    assert np.array_equal(plain.preprocess("data", IMAGE), IMAGE)


def test_images_are_resized_to_the_input(transformer: Transformer) -> None:
    large = np.random.default_rng(1).uniform(size=(9, 9, 3))
    result = transformer.preprocess("data", large)
    assert np.array_equal(result, resize_image(large.astype(np.float32), (4, 5)).transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5), (3, 8, 10), (1, 4, 5)])
def test_a_mean_image(transformer: Transformer, shape: tuple[int, ...]) -> None:
    mean = np.full(shape, 0.25)
    mean[..., : shape[-1] // 2] = 0.5
    transformer.set_mean("data", mean)
    result = IMAGE.transpose(2, 0, 1) - transformer.preprocess("data", IMAGE)
    assert result[:, :, 0] == pytest.approx(0.5, abs=0.13)
    assert result[:, :, -1] == pytest.approx(0.25, abs=0.13)
    if shape[-2:] == (4, 5):
        assert result == pytest.approx(np.broadcast_to(mean, (3, 4, 5)), abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda t: t.preprocess("x", IMAGE),
            RuntimeError,
            "x is not one of the net inputs: data, aux",
        ),
        (lambda t: t.set_raw_scale("x", 1), RuntimeError, "x is not one of the net inputs"),
        (lambda t: t.set_input_scale("x", 1), RuntimeError, "x is not one of the net inputs"),
        (lambda t: t.set_transpose("data", (1, 0)), ValueError, "the axes 0 to 2, each once"),
        (lambda t: t.set_channel_swap("data", (0, 1, 1)), ValueError, "the channels 0 to 2, each"),
        (lambda t: t.set_mean("data", np.zeros(2)), ValueError, "a mean of 2 channels .* 3"),
        (lambda t: t.set_mean("data", np.zeros((2, 4, 5))), ValueError, r"mean of shape \(2, 4"),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 4, 5))), ValueError, r"4 axes take \[0\]"),
    ],
)
def test_settings_that_do_not_fit(
    transformer: Transformer, call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(transformer)
