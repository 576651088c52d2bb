"""Boxes of crops and of whole images: identities between both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_prep.boxes import to_corners
from prototxt_gen import text
from prototxt_gen.errors import DataError, ProtoError, ShapeError
from prototxt_gen.localisation import PER_CLASS, SINGLE_CLASS
from runtime.backend.registry import create_backend
from runtime.evaluate.image_source import TestImages, preprocessing
from runtime.evaluate.score_net import ScoreNet, softmax
from runtime.paper.localisation.box_net import BoxNet, stride_of, window_corners
from runtime.paper.localisation.merging import merge
from runtime.paper.localisation.prediction import (
    central_boxes,
    crop_candidates,
    dense_candidates,
    merged_boxes,
)
from runtime.paper.localisation.truth import Truth, read_truth
from tests.runtime.evaluate.toy_net import CLASSES, CROP, STRIDE
from tests.runtime.paper.localisation.toy_boxes import (
    SHAPES,
    WEIGHTS,
    write_box_net,
    write_classifier,
    write_tree,
)

BACKEND = create_backend("cpu")
REGRESSIONS = pytest.mark.parametrize("kind", [PER_CLASS, SINGLE_CLASS])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("boxes")
    for kind in (PER_CLASS, SINGLE_CLASS):
        write_box_net(path / kind, kind)
    write_classifier(path / "classes")
    write_tree(path / "set")
    return path


@pytest.fixture(scope="module")
def truth(root: Path) -> Truth:
    return read_truth(root / "set")


def box_net(root: Path, kind: str, dense: bool) -> BoxNet:
    return BoxNet(root / kind / "train_val.prototxt", root / kind / WEIGHTS, BACKEND, dense)


def rating(root: Path, dense: bool) -> ScoreNet:
    model = text.read_net(root / "classes" / "train_val.prototxt")
    return ScoreNet(model, root / "classes" / "toy.caffemodel", BACKEND, dense)


def images_of(root: Path, truth: Truth) -> TestImages:
    model = text.read_net(root / PER_CLASS / "train_val.prototxt")
    return TestImages(truth.images, preprocessing(model), len(truth.labels))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-100, 100, shape).astype(np.float32)


@REGRESSIONS
def test_at_crop_size_the_dense_net_is_the_net_of_crops(root: Path, kind: str) -> None:
    x = noise(4, 3, CROP, CROP)
    with box_net(root, kind, dense=True) as dense, box_net(root, kind, dense=False) as crops:
        assert dense.boxes_per_window == (CLASSES if kind == PER_CLASS else 1)
        assert dense.stride == STRIDE
        first, second = dense.boxes(x), crops.boxes(x)
    assert first.shape == (4, dense.boxes_per_window, 1, 4)
    assert first.std() > 0.1
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_outputs_are_centre_and_size_in_crops(root: Path) -> None:
    x = noise(2, 3, CROP, CROP)
    with box_net(root, PER_CLASS, dense=False) as net:
        raw = net.score_maps(x)[:, :, 0, 0].astype(np.float64)
        found = net.boxes(x)[:, :, 0]
    for label in range(CLASSES):
        wanted = to_corners(CROP * raw[:, 4 * label : 4 * label + 4])
        np.testing.assert_allclose(found[:, label], wanted)


def test_boxes_move_with_their_window(root: Path) -> None:
    """Shifted by a window, an image gives the same boxes, a window further on, inside."""
    whole = noise(1, 3, 40, 40 + STRIDE)
    with box_net(root, PER_CLASS, dense=True) as net:
        first = net.boxes(np.ascontiguousarray(whole[..., :-STRIDE]))
        second = net.boxes(np.ascontiguousarray(whole[..., STRIDE:]))
    side = round(first.shape[2] ** 0.5)
    a = first.reshape(1, CLASSES, side, side, 4)[:, :, 1:-1, 2:-1]
    b = second.reshape(1, CLASSES, side, side, 4)[:, :, 1:-1, 1:-2]
    np.testing.assert_allclose(a, b + [STRIDE, 0, STRIDE, 0], atol=1e-3)


def test_windows_lie_row_by_row() -> None:
    found = window_corners(2, 3, 8)
    assert found.tolist() == [[x, y, x, y] for y in (0, 8) for x in (0, 8, 16)]


@REGRESSIONS
def test_a_central_crop_in_pixels_of_the_file(root: Path, kind: str, truth: Truth) -> None:
    """By hand: rescale, cut, predict, and undo both."""
    images, scale = images_of(root, truth), 20
    with box_net(root, kind, dense=False) as net:
        found = central_boxes(net, images, scale, truth.labels, truth.sizes)
        for index, label in enumerate(truth.labels):
            height, width = SHAPES[index % len(SHAPES)]
            assert truth.sizes[index].tolist() == [height, width]
            image = images.load(index, scale)[1]
            top, left = ((n - CROP) // 2 for n in image.shape[1:])
            crop = np.ascontiguousarray(image[None, :, top : top + CROP, left : left + CROP])
            own = net.boxes(crop)[0, label if kind == PER_CLASS else 0, 0]
            zoom = width / image.shape[2], height / image.shape[1]
            wanted = (own + [left, top, left, top]) * (*zoom, *zoom)
            np.testing.assert_allclose(found[index], wanted, atol=1e-3)


@REGRESSIONS
def test_candidates_of_a_whole_image(root: Path, kind: str, truth: Truth) -> None:
    images, scale = images_of(root, truth), 24
    classes = np.stack([truth.labels, (truth.labels + 1) % CLASSES], axis=1)
    with box_net(root, kind, dense=True) as net, rating(root, dense=True) as rated:
        found = dense_candidates(net, rated, images, scale, classes, truth.sizes)
        for index in (0, 1, 2):
            image = images.load(index, scale)[1][None]
            boxes, scores = found[index]
            height, width = truth.sizes[index]
            zoom = np.array([width / image.shape[3], height / image.shape[2]] * 2)
            maps = softmax(rated.score_maps(image))[0]
            assert boxes.shape == (2, maps[0].size, 4)
            for place, label in enumerate(classes[index]):
                np.testing.assert_allclose(scores[place], maps[label].ravel(), atol=1e-6)
                own = net.boxes(image)[0, label if kind == PER_CLASS else 0]
                np.testing.assert_allclose(boxes[place], own * zoom, atol=1e-3)


def test_a_grid_of_one_crop_is_the_central_crop(root: Path, truth: Truth) -> None:
    images = images_of(root, truth)
    with box_net(root, PER_CLASS, dense=False) as net, rating(root, dense=False) as rated:
        wanted = central_boxes(net, images, 20, truth.labels, truth.sizes)
        found = crop_candidates(net, rated, images, 20, 1, truth.labels[:, None], truth.sizes)
        np.testing.assert_allclose(merged_boxes([found])[:, 0], wanted, atol=1e-3)
        nine = crop_candidates(net, rated, images, 20, 3, truth.labels[:, None], truth.sizes)
        # An image that is wider than high distinguishes rows and columns.
        image = images.load(1, 20)[1]
        rows, columns = image.shape[1] - CROP, image.shape[2] - CROP
        assert (rows, columns) == (4, 11)
        corners = [(x, y) for y in (0, 2, 4) for x in (0, 5, 11)]
        crops = np.stack([image[:, y : y + CROP, x : x + CROP] for x, y in corners])
        own = net.boxes(crops)[:, truth.labels[1], 0] + [(x, y, x, y) for x, y in corners]
    zoom = truth.sizes[1, 1] / image.shape[2], truth.sizes[1, 0] / image.shape[1]
    np.testing.assert_allclose(nine[1][0][0], own * (*zoom, *zoom), atol=1e-3)
    for (box, score), (boxes, scores) in zip(found, nine):
        assert boxes.shape == (1, 9, 4)
        np.testing.assert_allclose(boxes[0, 4], box[0, 0], atol=1e-3)
        np.testing.assert_allclose(scores[0, 4], score[0, 0], atol=1e-6)


def test_dense_at_the_crops_own_scale_is_the_central_crop(root: Path, truth: Truth) -> None:
    """A square image at a short side of one crop has one window, which is the image."""
    square = [i for i in range(len(truth.labels)) if truth.sizes[i, 0] == truth.sizes[i, 1]]
    images, classes = images_of(root, truth), truth.labels[:, None]
    with box_net(root, PER_CLASS, dense=True) as net, rating(root, dense=True) as rated:
        found = merged_boxes(
            [dense_candidates(net, rated, images, CROP, classes, truth.sizes)], max_distance=0
        )
    with box_net(root, PER_CLASS, dense=False) as net:
        wanted = central_boxes(net, images, CROP, truth.labels, truth.sizes)
    assert len(square) >= 2
    np.testing.assert_allclose(found[square, 0], wanted[square], atol=1e-3)


def test_members_are_united_before_they_are_merged() -> None:
    one = [(np.array([[[0.0, 0, 10, 10]]]), np.array([[0.4]]))]
    two = [(np.array([[[2.0, 0, 12, 10], [50, 50, 60, 60]]]), np.array([[0.3, 0.6]]))]
    found = merged_boxes([one, two])
    # 0.4 + 0.3 is more than 0.6.
    assert found.tolist() == [[[1, 0, 11, 10]]]
    alone, _ = merge(two[0][0][0], two[0][1][0])
    assert merged_boxes([two])[0, 0].tolist() == alone[0].tolist() == [50, 50, 60, 60]


def test_a_net_of_another_crop_cannot_rate(root: Path, truth: Truth) -> None:
    images = images_of(root, truth)

    class Narrow(ScoreNet):
        def score_maps(self, x: np.ndarray) -> np.ndarray:
            return super().score_maps(x)[..., :1]

    model = text.read_net(root / "classes" / "train_val.prototxt")
    with (
        box_net(root, PER_CLASS, dense=True) as net,
        Narrow(model, root / "classes" / "toy.caffemodel", BACKEND, True) as rated,
        pytest.raises(ShapeError) as caught,
    ):
        dense_candidates(net, rated, images, 24, truth.labels[:, None], truth.sizes)
    assert str(caught.value).startswith("toy: ")
    assert str(caught.value).endswith(
        "windows, but 3 of the net toy that rates them; expected nets with the same crop; use the "
        "classification net that the weights were started from"
    )


def test_a_scale_below_the_crop_is_refused(root: Path, truth: Truth) -> None:
    with (
        box_net(root, PER_CLASS, dense=False) as net,
        pytest.raises(ShapeError, match="expected at least the net's crop of 16x16"),
    ):
        central_boxes(net, images_of(root, truth), 12, truth.labels, truth.sizes)


def test_a_net_of_classes_has_no_boxes(root: Path) -> None:
    folder = root / "classes"
    with pytest.raises(ProtoError) as caught:
        BoxNet(folder / "train_val.prototxt", folder / "toy.caffemodel", BACKEND, True)
    assert str(caught.value) == (
        "net 'toy': no layer predicts boxes; expected one whose name ends in -pcr or -scr, got "
        "none; give a net that `verydeep localise train` wrote"
    )
    assert stride_of(text.read_net(folder / "train_val.prototxt")) == STRIDE


def test_more_images_than_there_are(root: Path) -> None:
    assert len(read_truth(root / "set", 3).labels) == 3
    with pytest.raises(DataError) as caught:
        read_truth(root / "set", 8)
    assert str(caught.value) == (
        f"{root / 'set'}: 7 images with boxes; expected a number from 1 to 7, got 8; "
        "change --images"
    )


def test_the_truth_is_the_files(root: Path, truth: Truth) -> None:
    assert [len(each) for each in truth.boxes] == [1, 2, 1, 2, 1, 2, 1]
    assert truth.boxes[1].tolist() == [[2, 3, 14, 18], [5, 6, 20, 21]]
    assert truth.names[2] == "class 2"
    assert dataclasses.replace(truth).images.key(3) == "val/v3.png"
