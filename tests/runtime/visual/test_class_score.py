"""Gradients and maps of a class's score, compared with closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import runtime
from prototxt_gen.errors import ProtoError, ShapeError, UsageError
from runtime.inference.model import Model
from runtime.visual.class_score import ClassScore
from tests.runtime.inference.test_model import CLASSES, DENSE, write
from tests.runtime.process.concurrent_nets import FILLER
from tests.runtime.small_nets import conv, input_layer, layer

POOLED = (
    input_layer(4, 3, 8, 8)
    + conv("conv1", "data", 6, 3, f"pad: 1 {FILLER}")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + layer("Pooling", "pool", "conv1", "pooling_param { pool: AVE global_pooling: true }")
    + layer("InnerProduct", "fc", "pool", f"inner_product_param {{ num_output: 5 {FILLER} }}")
    + layer("Softmax", "prob", "fc")
)
LINEAR = (
    input_layer(2, 3, 6, 6)
    + layer("InnerProduct", "fc", "data", f"inner_product_param {{ num_output: 4 {FILLER} }}")
    + layer("Softmax", "prob", "fc")
)


def image(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((3, side, side)).astype(np.float32)


def opened(folder: Path, layers: str) -> Model:
    return runtime.load(*write(folder, layers), gradients=True)


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[Model]:
    with opened(tmp_path, POOLED) as model:
        yield model


def test_the_gradient_of_a_linear_score_is_its_weights(tmp_path: Path) -> None:
    with opened(tmp_path, LINEAR) as model:
        score = ClassScore(model)
        weights = model.layer_by_name("fc").blobs[0].data.host().reshape(4, 3, 6, 6)
        for label in range(4):
            np.testing.assert_allclose(score.gradient(image(6), label), weights[label], rtol=1e-6)
        np.testing.assert_allclose(
            score.saliency(image(6), 2), np.abs(weights[2]).max(axis=0), rtol=1e-6
        )
        # One step of the ascent goes along the weights.
        want = weights[1] / np.abs(weights[1]).mean()
        start, stepped = (score.class_image(1, steps, 1.0) for steps in (0, 1))
        np.testing.assert_allclose(stepped - start, want, atol=1e-3)


def test_the_gradient_by_differences(pooled: Model) -> None:
    score, x = ClassScore(pooled), image(8)
    gradient = score.gradient(x, 3)
    direction = image(8, 1)
    h = np.float32(1e-2)
    plus, minus = (
        pooled.predict((x + s * h * direction)[None], ["fc"])["fc"][0, 3] for s in (1, -1)
    )
    assert (plus - minus) / (2 * h) == pytest.approx((gradient * direction).sum(), rel=2e-2)
    assert pooled.blobs["data"].shape == (4, 3, 8, 8)


def test_grad_cam_by_its_closed_form(pooled: Model) -> None:
    x = image(8)
    weights = pooled.layer_by_name("fc").blobs[0].data.host()
    maps = pooled.predict(x[None], ["conv1"])["conv1"][0]
    for label in range(5):
        want = np.maximum(np.einsum("c,chw->hw", weights[label] / 64, maps), 0)
        got = ClassScore(pooled).grad_cam(x, label)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_occlusion_by_its_definition(pooled: Model) -> None:
    x, score = image(8), ClassScore(pooled)
    whole = pooled.predict(x[None], ["fc"])["fc"][0, 2]
    want = np.zeros((8, 8))
    for top in range(8):
        for left in range(8):
            hidden = x.copy()
            hidden[:, top, left] = 0
            want[top, left] = whole - pooled.predict(hidden[None], ["fc"])["fc"][0, 2]
    np.testing.assert_allclose(score.occlusion(x, 2, 1, 1), want, atol=1e-5)
    assert score.occlusion(x, 2, 3, 2).shape == (8, 8)
    # A square of the whole image leaves the biases alone, wherever it is whole.
    assert np.isfinite(score.occlusion(x, 2, 8, 8)).all()
    for window, stride in ((0, 1), (9, 1), (2, 3), (2, 0)):
        with pytest.raises(UsageError, match="--window"):
            score.occlusion(x, 2, window, stride)


def test_a_class_image_has_a_high_score(pooled: Model) -> None:
    score = ClassScore(pooled)
    made = score.class_image(4, 30, 0.5)
    assert score.best(made) == 4


def test_a_net_whose_scores_are_a_map(tmp_path: Path) -> None:
    layers = (
        input_layer(2, 3, 8, 8)
        + conv("conv1", "data", 6, 3, FILLER)
        + conv("fc", "conv1", 5, 1, FILLER)
        + layer("Softmax", "prob", "fc")
    )
    with opened(tmp_path, layers) as model:
        score = ClassScore(model)
        assert (score.classes, score.map_blob()) == (5, "conv1")
        assert score.grad_cam(image(8), 1).shape == (6, 6)


def test_what_has_no_class_score(tmp_path: Path, pooled: Model) -> None:
    with (
        opened(tmp_path, DENSE) as model,
        pytest.raises(ProtoError, match="class scores is unknown"),
    ):
        ClassScore(model)
    with (
        opened(tmp_path, LINEAR) as model,
        pytest.raises(ProtoError, match="no blob of maps before"),
    ):
        ClassScore(model).map_blob()
    score = ClassScore(pooled)
    for label in (-1, 5):
        with pytest.raises(UsageError, match=r"--class .*expected 0 to 4"):
            score.check_class(label)
    for blob in ("absent", "fc", "prob"):
        with pytest.raises(ProtoError, match="correct --layer"):
            score.grad_cam(image(8), 0, blob)
    two = input_layer(2, 3, 6, 6) + input_layer(2, 3, 6, 6).replace('"data"', '"other"')
    two += layer("Eltwise", "sum", "data").replace(
        'bottom: "data"', 'bottom: "data" bottom: "other"'
    )
    with opened(tmp_path, two) as model, pytest.raises(ShapeError, match="expected one input"):
        ClassScore(model)
    with opened(tmp_path, CLASSES) as model:
        assert ClassScore(model).map_blob() == "conv1"
