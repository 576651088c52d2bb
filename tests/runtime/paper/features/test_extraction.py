"""Features of a small net: the identities that must hold, and the files they are kept in."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data_prep.datum import rescale_short_side
from prototxt_gen import generate, proto, text
from prototxt_gen.errors import DataError, ProtoError, ShapeError, SnapshotError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.evaluate import image_source
from runtime.evaluate.image_source import open_source
from runtime.evaluate.score_net import ScoreNet
from runtime.net import Net
from runtime.paper.features import extraction
from runtime.paper.features.classification import Stacked
from runtime.paper.features.extraction import (
    DescriptorCache,
    Extractor,
    Features,
    ImageSet,
    descriptors,
)
from runtime.paper.features.feature_file import read_features, write_features
from runtime.paper.features.protocol import (
    FeatureProtocol,
    aggregate_scales,
    normalise,
    penultimate,
)
from runtime.paper.features.tasks import classed
from runtime.weights.net_weights import copy_trained_layers
from runtime.weights.npz import write_npz_weights
from tests.runtime.evaluate.toy_net import CROP, MEAN, write_images, write_net
from tests.runtime.small_nets import input_layer, layer, net_param, product

BACKEND = create_backend("cpu")
COUNT = 7
WIDTH = 9
"""Of the toy's last but one fully connected layer, fc4."""


@dataclasses.dataclass(frozen=True)
class Toy:
    source: Path
    model: Path
    weights: Path
    other: Path

    def images(self) -> ImageSet:
        return ImageSet(open_source(self.source), str(self.source))

    def extract(self, *scales: int, weights: Path | None = None, **more: Any) -> Features:
        extractor = Extractor(
            self.images(), BACKEND, more.pop("cache", None), more.pop("mean", None)
        )
        return extractor.extract(
            self.model, weights or self.weights, FeatureProtocol(scales, **more)
        )


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    root = tmp_path_factory.mktemp("toy")
    source = write_images(root / "val", COUNT)
    model = write_net(root / "net", str(source))
    write_net(root / "other", str(source), seed=9)
    return Toy(source, model, root / "net" / "toy.caffemodel", root / "other" / "toy.caffemodel")


def crop_activations(toy: Toy, images: np.ndarray, blob: str = "fc4") -> np.ndarray:
    """A blob of the deploy net itself, by a path of its own."""
    param = text.read_net(toy.model.with_name(generate.DEPLOY))
    del param.layer[0].input_param.shape[0].dim[:]
    param.layer[0].input_param.shape[0].dim.extend(images.shape)
    net = Net(param, proto.TEST, BACKEND, RunContext())
    copy_trained_layers(net, toy.weights, strict=True)
    net.blobs["data"].data.mutable_host()[...] = images
    net.forward()
    return net.blobs[blob].data.host().copy()


def pixels(toy: Toy, index: int, scale: int) -> np.ndarray:
    """An image of the toy's source as the net sees it. Shape (1,3,H,W)."""
    datum = image_source.datums.parse(open_source(toy.source).get(index), "")
    image = rescale_short_side(image_source.datums.image_of(datum, ""), scale)
    return (image.astype(np.float64) - MEAN).astype(np.float32).transpose(2, 0, 1)[None]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", [generate.TRAIN_VAL, generate.DEPLOY, generate.DENSE])
def test_of_a_crop_they_are_the_crop_nets_activations(toy: Toy, name: str) -> None:
    model = text.read_net(toy.model.with_name(name))
    x = np.random.default_rng(5).uniform(-100, 100, (3, 3, CROP, CROP)).astype(np.float32)
    wanted = crop_activations(toy, x)
    assert (wanted > 0).any()
    assert wanted.min() == 0  # the non-linearity is included
    with ScoreNet(model, toy.weights, BACKEND, dense=True, top=penultimate(model)) as net:
        assert net.classes == WIDTH
        found = descriptors(net, x, flip=False)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_by_hand(toy: Toy) -> None:
    """Square images at Q = crop: the crop net's activations, averaged with the flip's."""
    found = toy.extract(CROP)
    for index in (0, 3, 6):
        x = pixels(toy, index, CROP)
        flipped = np.ascontiguousarray(x[..., ::-1])
        both = (crop_activations(toy, x) + crop_activations(toy, flipped))[0] / 2
        np.testing.assert_allclose(found.values[index], unit(both), atol=1e-5)


def test_over_a_larger_image_they_are_the_mean_of_the_map(toy: Toy) -> None:
    found = toy.extract(24, flip=False)
    model = text.read_net(toy.model)
    with ScoreNet(model, toy.weights, BACKEND, dense=True, top="fc4") as net:
        for index in range(COUNT):
            maps = net.score_maps(pixels(toy, index, 24))
            assert maps[0, 0].size > 1
            mean = np.array([np.mean(plane, dtype=np.float64) for plane in maps[0]])
            np.testing.assert_allclose(found.values[index], unit(mean), atol=1e-5)


def test_a_flipped_image_has_the_same_features(toy: Toy) -> None:
    x = pixels(toy, 1, 20)
    flipped = np.ascontiguousarray(x[..., ::-1])
    model = text.read_net(toy.model)
    with ScoreNet(model, toy.weights, BACKEND, dense=True, top="fc4") as net:
        np.testing.assert_array_equal(
            descriptors(net, x, flip=True), descriptors(net, flipped, flip=True)
        )
        plain = [descriptors(net, each, flip=False) for each in (x, flipped)]
        assert np.abs(plain[0] - plain[1]).max() > 1e-3


@pytest.mark.parametrize("aggregate", ["average", "stack", "max"])
def test_every_descriptor_has_length_1(toy: Toy, aggregate: str) -> None:
    found = toy.extract(18, 22, aggregate=aggregate)
    np.testing.assert_allclose(np.linalg.norm(found.values, axis=1), 1, atol=1e-6)
    assert found.values.shape == (COUNT, 2 * WIDTH if aggregate == "stack" else WIDTH)


@pytest.mark.parametrize("aggregate", ["average", "stack", "max"])
def test_one_scale_is_that_scale(toy: Toy, aggregate: str) -> None:
    np.testing.assert_array_equal(
        toy.extract(20, aggregate=aggregate).values, toy.extract(20).values
    )


def test_scales_are_averaged_or_stacked_before_the_length_is_taken() -> None:
    parts = [np.array([[3.0, 0.0]]), np.array([[1.0, 2.0]])]
    assert aggregate_scales(parts, "average").tolist() == [[2.0, 1.0]]
    assert aggregate_scales(parts, "max").tolist() == [[3.0, 2.0]]
    assert aggregate_scales(parts, "stack").tolist() == [[3.0, 0.0, 1.0, 2.0]]
    np.testing.assert_allclose(normalise(np.array([[3.0, 4.0]]), ["a"]), [[0.6, 0.8]])


def test_two_nets_stacked_are_one_after_the_other(toy: Toy) -> None:
    one, two = toy.extract(20), toy.extract(20, 24, weights=toy.other, aggregate="stack")
    stacked = Stacked([one, two])
    assert stacked.dimension == 3 * WIDTH
    order = [4, 0, 2]
    found = stacked.rows(classed({"any": [one.names[i] for i in order]}))
    np.testing.assert_array_equal(found, np.hstack([one.values[order], two.values[order]]))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.sqrt(2), atol=1e-6)


def test_another_layer_can_be_named(toy: Toy) -> None:
    found = toy.extract(CROP, layer="fc3", flip=False)
    assert found.attributes["layer"] == "fc3"
    wanted = unit(crop_activations(toy, pixels(toy, 0, CROP), "fc3")[0])
    np.testing.assert_allclose(found.values[0], wanted, atol=1e-5)
    assert toy.extract(CROP, layer="pool2").values.shape == (COUNT, 12)


def test_what_they_depend_on_is_described(toy: Toy) -> None:
    found = toy.extract(18, 20, flip=False)
    assert found.names == tuple(f"{index:08d}" for index in range(COUNT))
    wanted = {"net": "toy", "layer": "fc4", "crop": "16x16", "scales": [18, 20], "flip": False}
    wanted |= {"aggregate": "average", "regions": "images", "images": COUNT, "dimension": WIDTH}
    assert {key: found.attributes[key] for key in wanted} == wanted
    assert len(found.attributes["weights_sha256"]) == 64
    assert "mean 100, 110, 120" in found.attributes["preprocessing"]
    assert found.attributes["protocol"] == (
        "dense, averaged over space, without flips; Q = 18, 20, averaged over scales; L2-normalised"
    )
    datum = image_source.datums.parse(open_source(toy.source).get(2), "")
    assert found.labels[2] == datum.label


def test_scales_are_kept_and_filed_by_all_that_matters(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DescriptorCache(tmp_path / "cache")
    first = toy.extract(18, 20, cache=cache)
    computed = []
    real = extraction.dense_rows
    monkeypatch.setattr(
        extraction, "dense_rows", lambda *a, **k: computed.append(a[2]) or real(*a, **k)
    )
    np.testing.assert_array_equal(toy.extract(18, 20, cache=cache).values, first.values)
    toy.extract(20, 18, aggregate="stack", cache=cache)
    assert computed == []
    # Without a cache the bits are the same.
    np.testing.assert_array_equal(toy.extract(18, 20).values, first.values)
    computed.clear()
    toy.extract(18, cache=cache, flip=False)
    toy.extract(18, cache=cache, layer="fc3")
    toy.extract(18, cache=cache, mean=(1, 2, 3))
    toy.extract(18, cache=cache, weights=toy.other)
    assert computed == [18] * 4


def test_a_damaged_cache_file_is_named(toy: Toy, tmp_path: Path) -> None:
    cache = DescriptorCache(tmp_path)
    toy.extract(18, cache=cache)
    (file,) = (path for path in tmp_path.glob("*.npz"))
    file.write_bytes(b"PK")
    with pytest.raises(DataError, match=f"{file.name}: the features cannot be read: "):
        toy.extract(18, cache=cache)


@pytest.mark.parametrize("name", ["f.h5", "f.hdf5", "f.npz"])
def test_files_give_back_what_was_written(toy: Toy, tmp_path: Path, name: str) -> None:
    features = toy.extract(18, 20)
    features = dataclasses.replace(features, names=("ö/ä b.jpg", *features.names[1:]))
    path = tmp_path / name
    write_features(path, features)
    found = read_features(path)
    assert found.names == features.names
    assert found.attributes == features.attributes
    np.testing.assert_array_equal(found.values, features.values)
    np.testing.assert_array_equal(found.labels, features.labels)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_hdf5_is_as_documented(toy: Toy, tmp_path: Path) -> None:
    write_features(tmp_path / "f.h5", toy.extract(18, 20))
    with h5py.File(tmp_path / "f.h5", "r") as file:
        assert file["features"].shape == (COUNT, WIDTH)
        assert file["names"].asstr()[0] == "00000000"
        assert file.attrs["net"] == "toy"
        assert file.attrs["scales"].tolist() == [18, 20]
        assert file.attrs["flip"]


def test_files_without_features_are_refused(toy: Toy, tmp_path: Path) -> None:
    features = toy.extract(18)
    for path in (tmp_path / "f.txt", tmp_path / "f"):
        with pytest.raises(DataError, match=r"expected a name that ends in \.h5, \.hdf5, \.npz, "):
            write_features(path, features)
    for name in ("f.h5", "f.npz"):
        with pytest.raises(DataError, match=f"{name}: the features cannot be read: "):
            read_features(tmp_path / name)
        (tmp_path / name).write_bytes(b"rubbish")
        with pytest.raises(DataError, match=f"{name}: the features cannot be read: "):
            read_features(tmp_path / name)
        bare = dataclasses.replace(features, attributes={"net": "toy"})
        write_features(tmp_path / name, bare)
        with pytest.raises(DataError, match="no attribute weights_sha256, scales, aggregate, flip"):
            read_features(tmp_path / name)
        write_features(tmp_path / name, dataclasses.replace(features, names=("a",)))
        with pytest.raises(DataError, match=r"of shape \(7, 9\) for 1 names, not a row for each"):
            read_features(tmp_path / name)


def test_a_write_that_fails_leaves_the_old_file(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = toy.extract(18)
    for name in ("f.h5", "f.npz"):
        write_features(tmp_path / name, features)
        whole = (tmp_path / name).read_bytes()
        broken = dataclasses.replace(features, attributes={"bad": object()})
        with pytest.raises(TypeError):
            write_features(tmp_path / name, broken)
        assert (tmp_path / name).read_bytes() == whole
    assert sorted(each.name for each in tmp_path.iterdir()) == ["f.h5", "f.npz"]


def test_nets_without_such_a_layer_are_refused(toy: Toy) -> None:
    with pytest.raises(ProtoError) as caught:
        toy.extract(18, layer="fc9")
    assert "net 'toy': no blob 'fc9'; expected one of data, " in str(caught.value)
    bare = input_layer(1, 3, 8, 8)
    with pytest.raises(ProtoError, match="the blob of class scores is unknown"):
        penultimate(net_param(bare + product("ip", "data", 3)))
    with pytest.raises(ProtoError) as caught:
        penultimate(net_param(bare + layer("ReLU", "act", "data") + layer("Softmax", "p", "act")))
    assert str(caught.value) == (
        "net 'small': its class scores come from layer 'act' of type ReLU; expected a fully "
        "connected layer, which is removed; select the blob of the activations with --layer"
    )


def test_other_errors(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ProtoError, match="aggregate: expected one of average, stack, max, got 'm"):
        FeatureProtocol((18,), "median")
    with pytest.raises(ProtoError, match="scales: expected short sides of 1 pixel or more"):
        FeatureProtocol((18, 18))
    with pytest.raises(ShapeError, match="expected at least the net's crop of 16x16"):
        toy.extract(12)
    with pytest.raises(SnapshotError, match=r"lost\.caffemodel: the weights cannot be read"):
        toy.extract(18, weights=tmp_path / "lost.caffemodel")
    with pytest.raises(DataError) as caught:
        normalise(np.array([[1.0, 0.0], [0.0, 0.0]]), ["a.jpg", "b.jpg"])
    assert str(caught.value) == (
        "b.jpg: features of length 0; expected finite activations, at least one of them not 0; "
        "check the image and the weights"
    )
    with pytest.raises(DataError, match="a: features of length nan; expected"):
        normalise(np.array([[np.nan]]), ["a"])


def test_weights_that_do_not_fit_are_refused_but_for_what_is_taken_off(
    toy: Toy, tmp_path: Path
) -> None:
    """The classifier may be missing from the weights, or be there: it is not needed."""
    net = Net(text.read_net(toy.model.with_name(generate.DEPLOY)), proto.TEST, BACKEND)
    copy_trained_layers(net, toy.weights, strict=True)

    def arrays(*left_out: str) -> list[tuple[str, list[np.ndarray]]]:
        return [
            (str(each.param.name), [blob.data.host() for blob in each.blobs])
            for each in net.layers
            if each.blobs and each.param.name not in left_out
        ]

    path = tmp_path / "w.npz"
    write_npz_weights(path, arrays("fc5"))
    found = toy.extract(18, weights=path)
    np.testing.assert_array_equal(found.values, toy.extract(18).values)
    write_npz_weights(path, arrays("fc4"))
    with pytest.raises(SnapshotError, match="does not fit the net exactly"):
        toy.extract(18, weights=path)
    write_npz_weights(path, [*arrays(), ("stranger", [np.zeros(2, np.float32)])])
    with pytest.raises(SnapshotError, match="does not fit the net exactly"):
        toy.extract(18, weights=path)
