"""io: images read, resized and cropped; arrays into messages and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from prototxt_gen.errors import DataError
from runtime.pycaffe import caffe_pb2, io


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Three pixels in a row: red, a dark green, white."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[[0, 0, 255], [0, 51, 0], [255, 255, 255]]], np.uint8))
    return path


def test_colour_is_rgb_between_0_and_1(picture: Path) -> None:
    image = io.load_image(picture)
    assert (image.dtype, image.shape) == (np.float32, (1, 3, 3))
    np.testing.assert_allclose(image[0], [[1, 0, 0], [0, 0.2, 0], [1, 1, 1]], rtol=1e-6)
    grey = io.load_image(str(picture), color=False)
    assert (grey.dtype, grey.shape) == (np.float32, (1, 3, 1))
    np.testing.assert_allclose(grey.ravel(), [0.2125, 0.7154 * 0.2, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("stored", "color", "expected"),
    [
        (np.array([[0, 255]]), True, [[0, 0, 0], [1, 1, 1]]),
        (np.array([[0, 255]]), False, [[0], [1]]),
        (np.array([[[0, 0, 255, 7], [255, 0, 0, 0]]]), True, [[1, 0, 0], [0, 0, 1]]),
    ],
)
def test_grey_and_transparent_files(
    tmp_path: Path, stored: Any, color: bool, expected: Any
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), stored.astype(np.uint8))
    image = io.load_image(tmp_path / "a.png", color)
    assert image[0].tolist() == expected
    image[...] = 0  # writable, also if the file is read-only


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a.jpg: the image does not decode \(2 bytes, no image"):
        io.load_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"b.jpg: cannot be read: No such file"):
        io.load_image(tmp_path / "b.jpg")


def test_resizing_keeps_ramps_and_constants() -> None:
    ramp = np.broadcast_to(np.linspace(-3, 5, 16)[None, :, None], (8, 16, 3))
    same = io.resize_image(ramp, (8, 16))
    assert (same.dtype, np.allclose(same, ramp)) == (np.float32, True)
    wide = io.resize_image(ramp, (8, 31))[4, 2:-2, 1]
    steps = np.diff(wide)
    assert (steps > 0).all()
    assert steps == pytest.approx(steps.mean(), rel=0.2)
    for channels in (1, 2, 3, 5):
        flat = io.resize_image(np.full((4, 6, channels), 0.3), (9, 3))
        assert flat.shape == (9, 3, channels)
        assert flat == pytest.approx(0.3)


def test_resizing_is_that_of_scikit_image_or_scipy() -> None:
    from scipy.ndimage import zoom
    from skimage.transform import resize

    image = np.random.default_rng(0).uniform(-2, 7, (12, 10, 3))
    low, high = image.min(), image.max()
    expected = resize((image - low) / (high - low), (7, 5), order=1, mode="constant")
    np.testing.assert_allclose(
        io.resize_image(image, (7, 5)), expected * (high - low) + low, rtol=1e-5
    )
    many = np.random.default_rng(1).uniform(size=(6, 8, 4))
    np.testing.assert_allclose(
        io.resize_image(many, (9, 4), interp_order=0), zoom(many, (1.5, 0.5, 1), order=0), rtol=1e-6
    )


def test_oversample() -> None:
    images = np.arange(2 * 5 * 7 * 2).reshape(2, 5, 7, 2)
    crops = io.oversample(list(images), (2, 3))
    assert (crops.shape, crops.dtype) == ((20, 2, 3, 2), np.float32)
    for image, ten in zip(images, crops.reshape(2, 10, 2, 3, 2)):
        for crop, (y, x) in zip(ten, [(0, 0), (0, 4), (3, 0), (3, 4), (1, 2)]):
            assert np.array_equal(crop, image[y : y + 2, x : x + 3])
        assert np.array_equal(ten[5:], ten[:5, :, ::-1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: io.oversample([], (1, 1)), "expected images of one size"),
        (lambda: io.oversample([np.zeros((2, 2, 1)), np.zeros((3, 2, 1))], (1, 1)), "one size"),
        (lambda: io.oversample([np.zeros((2, 2, 1))], (3, 1)), "crops of 3x1 from images of 2x2"),
        (lambda: io.resize_image(np.zeros((2, 2)), (1, 1)), r"an image of shape \(2, 2\)"),
        (lambda: io.resize_image(np.zeros((2, 2, 3)), (0, 1)), "a size of at least 1x1"),
        (lambda: io.array_to_datum(np.zeros((2, 2))), r"an array of shape \(2, 2\); expected"),
        (lambda: io.datum_to_array(caffe_pb2.Datum(channels=2)), "Datum of 2x0x0 with 0 values"),
        (lambda: io.array_to_blobproto(np.zeros(2), np.zeros(3)), r"data's shape \(2,\)"),
        (lambda: io.blobproto_to_array(caffe_pb2.BlobProto(data=[1, 2])), "without a shape and 2"),
        (
            lambda: io.blobproto_to_array(caffe_pb2.BlobProto(num=2, data=[1])),
            r"as many numbers as shape \(2, 0, 0, 0\) has, got 1",
        ),
        (lambda: io.blobprotovector_str_to_arraylist(b"\xff"), "not a BlobProtoVector"),
    ],
)
def test_arrays_that_do_not_fit(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "expected" in str(caught.value)


def test_blobs() -> None:
    data, diff = np.arange(6.0).reshape(1, 2, 3), np.ones((1, 2, 3))
    blob = io.array_to_blobproto(data, diff)
    assert list(blob.shape.dim) == [1, 2, 3]
    assert np.array_equal(io.blobproto_to_array(blob), data)
    assert np.array_equal(io.blobproto_to_array(blob, return_diff=True), diff)
    assert not len(io.array_to_blobproto(data).diff)
    legacy = caffe_pb2.BlobProto(num=1, channels=1, height=2, width=3, data=range(6))
    assert io.blobproto_to_array(legacy).shape == (1, 1, 2, 3)
    number = io.blobproto_to_array(caffe_pb2.BlobProto(data=[123]))
    assert (number.shape, number) == ((), 123)
    listed = io.blobprotovector_str_to_arraylist(
        io.arraylist_to_blobprotovector_str([data, np.zeros((0, 4)), diff[0]])
    )
    assert [array.shape for array in listed] == [(1, 2, 3), (0, 4), (2, 3)]
    assert np.array_equal(listed[0], data)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_datums(dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    datum = io.array_to_datum(array, label=7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 7)
    assert bool(datum.data) is (dtype is np.uint8)
    assert np.array_equal(io.datum_to_array(datum), array)
    unlabelled = io.array_to_datum(array)
    assert not unlabelled.HasField("label")
    assert len(unlabelled.SerializeToString()) < len(datum.SerializeToString())


def test_an_encoded_datum_is_decoded() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    result = io.datum_to_array(caffe_pb2.Datum(data=data, encoded=True))
    assert np.array_equal(result, pixels.transpose(2, 0, 1))
