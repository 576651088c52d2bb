"""Datums: raw, float and encoded; and what a damaged one is answered with."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from data_prep import datum
from prototxt_gen import proto
from prototxt_gen.errors import DataError
from tests.data_prep.image_samples import accepted, oriented
from tests.data_prep.small_images import jpeg, photograph


def _again(message: proto.Message) -> proto.Message:
    return datum.parse(message.SerializeToString(), "record")


def test_raw_bytes_keep_their_order() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    message = _again(datum.from_array(image, 7))
    assert (message.channels, message.height, message.width, message.label) == (2, 3, 4, 7)
    assert message.data == bytes(range(24))
    np.testing.assert_array_equal(datum.to_array(message), image)
    assert datum.image_of(message, "record")[2, 3, 1] == image[1, 2, 3]


def test_floats_round_trip() -> None:
    image = np.linspace(-3, 3, 12).reshape(3, 2, 2)
    message = _again(datum.from_array(image, 0))
    assert message.data == b""
    back = datum.to_array(message)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, image.astype(np.float32))


def test_an_encoded_datum_has_no_sizes_and_decodes_to_bgr() -> None:
    image = photograph(6, 5)
    message = _again(datum.from_encoded(datum.encode(image, "png", 95, "x"), 3))
    assert message.encoded
    assert not message.HasField("channels")
    np.testing.assert_array_equal(datum.to_array(message), image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "channels"), [(datum.NATIVE, 1), (datum.COLOR, 3), (datum.GRAY, 1)]
)
def test_channels_of_a_gray_file(mode: str, channels: int) -> None:
    gray = jpeg(photograph(8, 9)[:, :, 0])
    assert datum.decode(gray, "gray.jpg", mode).shape == (8, 9, channels)


@pytest.mark.parametrize("mode", [datum.NATIVE, datum.COLOR, datum.GRAY])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_tags_are_ignored(mode: str, orientation: int) -> None:
    upright = oriented(1)
    for name, content in oriented(orientation).items():
        if name == "turned.jpg":  # OpenCV by itself turns it
            turned = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            assert turned.shape == ((24, 16, 3) if orientation > 4 else (16, 24, 3))
        found = datum.decode(content, name, mode)
        np.testing.assert_array_equal(found, datum.decode(upright[name], name, mode))


def test_bytes_that_are_no_datum() -> None:
    with pytest.raises(DataError, match=r"record 5: not a Datum message .*expected a record"):
        datum.parse(b"\xff\xff\xff\xff", "record 5")


@pytest.mark.parametrize(
    "sizes", [(3, 2, 3), (1 << 30, 1 << 30, 1 << 30), (0, 0, 0), (-3, 2, -2), (-1, -3, 4)]
)
def test_sizes_that_do_not_fit_the_data(sizes: tuple[int, int, int]) -> None:
    message = proto.Datum(data=bytes(12))
    message.channels, message.height, message.width = sizes
    with pytest.raises(DataError, match=r"r1: Datum of .* with 12 values; expected channels x"):
        datum.image_of(message, "r1")


def _truncated_jpeg() -> bytes:
    data = jpeg(photograph(64, 64))
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"not an image", "no image header"),
        (_truncated_jpeg(), "jpeg header of 64x64, truncated or corrupt"),
        (datum.encode(photograph(40, 30), "png", 0, "x")[:-20], "png header of 40x30, truncated"),
    ],
)
def test_images_that_do_not_decode(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=rf"k: the image does not decode .*{words}.*replace the"):
        datum.decode(data, "k")


def test_a_forged_size_is_refused_before_it_is_allocated() -> None:
    data = bytearray(jpeg(photograph(16, 16)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 30000, 30000)
    with pytest.raises(DataError, match="k: the header claims 30000x30000 pixels; expected at mo"):
        datum.decode(bytes(data), "k")


@pytest.mark.parametrize("mode", [datum.NATIVE, datum.COLOR, datum.GRAY])
def test_sixteen_bits_are_cut_to_the_upper_eight(mode: str) -> None:
    wide = np.array([[0, 255, 256, 511, 40000, 65535]], np.uint16)
    for extension in (".png", ".tiff", ".pgm"):
        data = cv2.imencode(extension, wide)[1].tobytes()
        found = datum.decode(data, extension, mode)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[0, :, 0], [0, 0, 1, 1, 156, 255])


def test_decoding_in_several_threads() -> None:
    files = [content for content, _ in accepted().values()] * 8
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda content: datum.decode(content, "k"), files))
    for content, image in zip(files, found, strict=True):
        np.testing.assert_array_equal(image, datum.decode(content, "k"))


@pytest.mark.parametrize("extension", sorted(datum.ENCODINGS))
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_encoded_is_decoded(extension: str, channels: int) -> None:
    image = photograph(12, 9)[:, :, :channels]
    if extension == "webp" and channels == 1:
        with pytest.raises(
            DataError, match=r"\(12, 9, 1\) cannot be encoded as 'webp'; expected a"
        ):
            datum.encode(image, extension, 95, "k")
        return
    found = datum.decode(datum.encode(image, f".{extension.upper()}", 95, "k"), "k")
    assert found.shape == image.shape
    tolerance = 30 if extension in ("jpg", "jpeg", "jpe") else 0
    np.testing.assert_allclose(found, image, atol=tolerance)


@pytest.mark.parametrize("name", ["gif", "jp2", "exr", "hdr", "avif", "pam", "pfm", "ras", ""])
def test_formats_that_readers_refuse_are_not_written(name: str) -> None:
    with pytest.raises(DataError, match=f"an image of .* cannot be encoded as '{name}'; expected"):
        datum.encode(photograph(4, 4), name, 95, "k")


def test_images_that_a_format_cannot_hold() -> None:
    for extension, shape in (("jpg", (2, 70000, 3)), ("webp", (2, 17000, 3)), ("png", (2, 2, 2))):
        with pytest.raises(DataError, match=f"cannot be encoded as '{extension}'; expected a fo"):
            datum.encode(np.zeros(shape, np.uint8), extension, 95, "k")


def test_formats_that_cannot_be_written() -> None:
    with pytest.raises(DataError, match=r"k: an image of .* cannot be encoded as 'xyz'"):
        datum.encode(photograph(4, 4), "xyz", 95, "k")


def test_arrays_of_other_dimensions() -> None:
    with pytest.raises(DataError, match=r"array_to_datum: an array of shape \(4, 4\); expected"):
        datum.from_array(np.zeros((4, 4), np.uint8), 0)
