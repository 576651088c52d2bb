"""Dense nets agree with the nets they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import generate, text
from prototxt_gen.errors import ProtoError, ShapeError, SnapshotError, UnsupportedError
from runtime.backend.registry import create_backend
from runtime.evaluate.dense import image_posteriors, map_posteriors
from runtime.evaluate.score_net import ScoreNet, softmax
from runtime.evaluate.surgery import crop_form, dense_form
from tests.runtime.evaluate.toy_net import CLASSES, CROP, STRIDE, deploy_scores, write_net
from tests.runtime.small_nets import input_layer, layer, net_param, product

BACKEND = create_backend("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy")
    write_net(path)
    return path


def open_net(folder: Path, dense: bool, name: str = generate.TRAIN_VAL) -> ScoreNet:
    return ScoreNet(text.read_net(folder / name), folder / "toy.caffemodel", BACKEND, dense)


def images(count: int, height: int = CROP, width: int = CROP) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.uniform(-100, 100, (count, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize("name", [generate.TRAIN_VAL, generate.DEPLOY, generate.DENSE])
@pytest.mark.parametrize("dense", [True, False])
def test_at_crop_size_every_form_is_the_crop_net(folder: Path, name: str, dense: bool) -> None:
    x = images(5)
    wanted = deploy_scores(folder, x)
    assert wanted.std() > 0.01
    with open_net(folder, dense, name) as net:
        maps = net.score_maps(x)
    assert maps.shape == (5, CLASSES, 1, 1)
    np.testing.assert_allclose(softmax(maps)[:, :, 0, 0], wanted, atol=1e-5)


def test_a_shifted_image_has_the_shifted_map_inside(folder: Path) -> None:
    whole = images(1, 48, 48 + STRIDE)
    with open_net(folder, dense=True) as net:
        first = net.score_maps(np.ascontiguousarray(whole[..., :-STRIDE]))
        second = net.score_maps(np.ascontiguousarray(whole[..., STRIDE:]))
    assert first.shape[2:] == (9, 9)
    inside = slice(1, -1)
    left, right = first[:, :, inside, 2:-1], second[:, :, inside, 1:-2]
    np.testing.assert_allclose(left, right, atol=1e-5)
    # The border differs, because zeros are there instead of the image.
    assert np.abs(first[..., 1:] - second[..., :-1]).max() > 1e-3


def test_a_window_of_the_map_is_the_crop_there_but_for_the_padding(folder: Path) -> None:
    x = images(1, CROP, CROP + 3 * STRIDE)
    with open_net(folder, dense=True) as net:
        maps = net.score_maps(x)
    assert maps.shape == (1, CLASSES, 1, 4)
    own = deploy_scores(folder, np.ascontiguousarray(x[..., :CROP]))
    assert 1e-6 < np.abs(softmax(maps)[:, :, 0, 0] - own).max() < 0.5


@pytest.mark.parametrize("average", ["before", "after"])
def test_the_flip_average_is_symmetric(folder: Path, average: str) -> None:
    x = images(2, 20, 27)
    flipped = np.ascontiguousarray(x[..., ::-1])
    with open_net(folder, dense=True) as net:
        one, other = (image_posteriors(net, each, average, flip=True) for each in (x, flipped))
        plain = image_posteriors(net, x, average, flip=False)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one.sum(axis=1), 1)
    assert np.abs(one - plain).max() > 1e-4


def test_averaging_before_or_after_the_softmax() -> None:
    maps = np.zeros((1, 2, 1, 2), np.float32)
    maps[0, 0, 0] = 0, 4
    before, after = (map_posteriors(maps, order)[0, 0] for order in ("before", "after"))
    assert before == pytest.approx(1 / (1 + np.exp(-2)))
    assert after == pytest.approx((0.5 + 1 / (1 + np.exp(-4))) / 2)


def test_the_batch_follows_memory(folder: Path) -> None:
    model, weights = text.read_net(folder / generate.TRAIN_VAL), folder / "toy.caffemodel"
    x = images(3, 32, 40)
    with (
        ScoreNet(model, weights, BACKEND, True, memory=1) as small,
        ScoreNet(model, weights, BACKEND, True, memory=16 << 20) as large,
    ):
        assert small.batch_for(32, 40) == 1
        many, few = large.batch_for(32, 40), large.batch_for(160, 160)
        assert 1 < few < many
        whole = large.score_maps(x)
        parts = [small.score_maps(x[i : i + 1]) for i in range(3)]
    # Sums of some 300 terms near 10, cut into other pieces: eps * sqrt(300) * 10.
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=2e-5)


def test_an_image_below_the_crop_is_refused(folder: Path) -> None:
    with open_net(folder, dense=True) as net, pytest.raises(ShapeError) as caught:
        net.score_maps(images(1, CROP, CROP - 1))
    assert str(caught.value) == (
        "net 'toy': an image of 16x15; expected at least the net's crop of 16x16; "
        "use larger --scales"
    )


def test_weights_that_do_not_fit_exactly_are_refused(folder: Path) -> None:
    model = text.read_net(folder / generate.TRAIN_VAL)
    next(each for each in model.layer if each.name == "fc3").name = "other"
    for each in model.layer:
        for names in (each.bottom, each.top):
            names[:] = ["other" if name == "fc3" else name for name in names]
    with pytest.raises(SnapshotError, match="does not fit the net exactly"):
        ScoreNet(model, folder / "toy.caffemodel", BACKEND, dense=True)


def test_layers_that_cannot_be_applied_densely_are_refused() -> None:
    flat = layer("Flatten", "flat", "data") + product("ip", "flat", 3)
    model = net_param(input_layer(1, 3, 8, 8) + flat + layer("Softmax", "prob", "ip"))
    assert crop_form(model).crop == (8, 8)
    with pytest.raises(UnsupportedError, match=r"layer 'flat': a Flatten layer cannot be applied"):
        dense_form(model, BACKEND)
    ip = product("ip", "data", 3).replace("num_output: 3", "num_output: 3 transpose: true")
    model = net_param(input_layer(1, 3, 8, 8) + ip + layer("Softmax", "prob", "ip"))
    with pytest.raises(UnsupportedError, match=r"layer 'ip': expected axis 1 and no transpose"):
        dense_form(model, BACKEND)


def test_a_net_without_scores_or_size_is_refused() -> None:
    with pytest.raises(ProtoError, match=r"net 'small': the blob of class scores is unknown"):
        crop_form(net_param(input_layer(1, 3, 8, 8) + product("ip", "data", 3)))
    data = 'layer { name: "data" type: "Data" top: "data" top: "label" }\n'
    with pytest.raises(ProtoError, match="the size of the crops is unknown"):
        crop_form(net_param(data + product("ip", "data", 3) + layer("Softmax", "prob", "ip")))
    two = input_layer(1, 3, 8, 8) + input_layer(1, 3, 8, 8, name="more")
    both = two + product("a", "data", 3) + product("b", "more", 3) + layer("Eltwise", "ab", "a b")
    with pytest.raises(ProtoError, match="scores must come from one layer of images"):
        crop_form(net_param(both + layer("Softmax", "prob", "ab")))
