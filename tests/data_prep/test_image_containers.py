"""Sizes in TIFF, BMP, PBM, PGM, PPM and WebP files, where two fields could be taken for them."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from data_prep import datum
from data_prep.image_file import ImageHeader, read_header
from prototxt_gen.errors import DataError
from tests.data_prep.image_samples import HEIGHT, PICTURE, WIDTH, tiff, written


@pytest.mark.parametrize("order", ["<", ">"])
def test_fields_of_tiff(order: str) -> None:
    content = tiff(order)
    expected = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH, 1)
    np.testing.assert_array_equal(datum.decode(content, "k"), expected)
    for orientation in ("H", 6), ("I", 3), ("B", 4), ("H", 77):
        turned = tiff(order, (274, *orientation))
        np.testing.assert_array_equal(datum.decode(turned, "k"), expected)
    for changes, words in (
        ([(256, "I", 70000), (257, "I", 70000)], "the header claims 70000x70000 pixels"),
        ([(257, "I", 9000), (257, "H", 9)], "a TIFF directory with two fields 257"),
        ([(256, "Q", 24)], "a TIFF directory with 1 values of type 16 in field 256"),
        ([(322, "I", 16000), (323, "I", 16000)], "in tiles or strips of 16000x16000"),
        ([(278, "I", 1 << 30)], f"in tiles or strips of {1 << 30}x24"),
        ([(278, "I", 0)], "in tiles or strips of 0x24"),
        ([(322, "I", 16)], "a TIFF directory without field 323"),
        ([(257, "I", 1 << 20), (278, "I", 1)], "tiff header of 1048576x24, truncated or corrupt"),
        ([(277, "H", 60000)], "a TIFF file of more than 4 channels"),
        ([(259, "H", 6)], "a TIFF file of compression 6, photometric 1"),
        ([(259, "H", 50001)], "a TIFF file of compression 50001, photometric 1"),
        ([(262, "H", 32845)], "a TIFF file of compression 1, photometric 32845"),
        ([(257, "H", 0)], "a tiff header without a size"),
    ):
        with pytest.raises(DataError, match=words):
            datum.decode(tiff(order, *changes), "k")
    with pytest.raises(DataError, match="a header that is truncated or corrupt"):
        read_header(content[:-20], "k")
    start = struct.unpack_from(f"{order}I", content, 4)[0]
    for kind, most in (3, len(content) // 2), (5, len(content) // 8), (7, len(content)):
        entry = struct.pack(f"{order}HHI", 256, kind, most + 1)
        forged = content[: start + 2] + entry + content[start + 2 + len(entry) :]
        with pytest.raises(DataError, match=f"a TIFF directory with {most + 1} values in field"):
            datum.decode(forged, "k")


def test_rows_of_bmp_from_the_top() -> None:
    content = bytearray(written(PICTURE, "BMP"))
    upright = datum.decode(bytes(content), "k")
    content[22:26] = struct.pack("<i", -HEIGHT)
    assert read_header(bytes(content), "k").height == HEIGHT
    np.testing.assert_array_equal(datum.decode(bytes(content), "k"), upright[::-1])
    content[22:26] = struct.pack("<i", -(1 << 31))
    with pytest.raises(DataError, match=f"the header claims {1 << 31}x{WIDTH} pixels"):
        datum.decode(bytes(content), "k")
    content[14:18] = struct.pack("<I", 12)
    with pytest.raises(DataError, match="a BMP file with a header of 12 bytes, older than Win"):
        datum.decode(bytes(content), "k")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b"P2\n# 9 9\n3 2\n255 0 1 2 3 4 5\n", (2, 3)),
        (b"P2 #a\r#b\n 3\t2 # 8\n255 0 1 2 3 4 5\n", (2, 3)),
        (b"P1\n5 2\n1010101010", (2, 5)),
        (b"P4 9 2\n" + bytes(4), (2, 9)),
    ],
)
def test_headers_of_pnm(text: bytes, size: tuple[int, int]) -> None:
    assert datum.decode(text, "k").shape == (*size, 1)
    header = read_header(text, "k")
    assert (header.height, header.width) == size


@pytest.mark.parametrize(
    "text",
    [
        b"P5 10#70000 70000\n70000 255 0",
        b"P5 10x70000\n70000 255 0",
        b"P5 " + b"#" * 100_000,
        b"P5 " + b"1" * 5000 + b" 1 255\n0",
        b"P5\n",
        b"P5x3 2 255 0",
    ],
    ids=lambda value: value[:16].decode(),
)
def test_headers_of_pnm_that_the_decoder_reads_otherwise(text: bytes) -> None:
    with pytest.raises(DataError, match="a PBM, PGM or PPM header without a size"):
        datum.decode(text, "k")


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP"
    for name, content in chunks:
        body += name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"VP8X", bytes((flags, 0, 0, 0)) + sizes


@pytest.mark.parametrize("lossless", [False, True])
def test_canvas_and_frame_of_webp(lossless: bool) -> None:
    plain = written(PICTURE, "WEBP", lossless=lossless)
    frame = (plain[12:16], plain[20:])
    assert read_header(plain, "k") == ImageHeader("webp", HEIGHT, WIDTH, 3)
    same = riff(extended(WIDTH, HEIGHT, 0x20), (b"ICCP", b"odd"), (b"zzzz", b""), frame)
    assert read_header(same, "k") == ImageHeader("webp", HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(datum.decode(same, "k"), datum.decode(plain, "k"))
    for size in ((9000, 9000), (1 << 24, 1 << 24), (1, 1)):
        with pytest.raises(DataError, match=r"a WebP canvas of .* with a frame of"):
            datum.decode(riff(extended(*size), frame), "k")
    with pytest.raises(DataError, match="an animated WebP file"):
        datum.decode(riff(extended(WIDTH, HEIGHT, 0x02), frame), "k")
    with pytest.raises(DataError, match="a WebP file without an image"):
        datum.decode(riff((b"ICCP", b"odd"), frame), "k")
    with pytest.raises(DataError, match="a WebP file with a corrupt image header"):
        datum.decode(riff((frame[0], bytes(len(frame[1])))), "k")
