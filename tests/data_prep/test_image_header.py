"""Sizes read from headers are those that the decoder uses, and forged ones never reach it."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from data_prep import datum
from data_prep.image_file import MAX_PIXELS, ImageHeader, read_header
from prototxt_gen.errors import DataError
from tests.data_prep.image_samples import (
    GRAY_FILES,
    HEIGHT,
    PICTURE,
    WIDTH,
    accepted,
    png,
    png_chunk,
    tiff,
    written,
)
from tests.data_prep.small_images import jpeg, photograph

PLAIN = {
    *("color.png", "gray.png", "one_bit.png", "palette.png", "no_suffix"),
    *("color.jpg", "progressive.jpg", "gray.jpg", "png_named.JPEG"),
}
FORMATS = {
    **{"jpg": "jpeg", "png": "png", "bmp": "bmp", "tif": "tiff", "webp": "webp"},
    **{"ppm": "pnm", "pgm": "pnm", "pbm": "pnm", "JPEG": "png", "no_suffix": "png"},
}


def test_every_accepted_file() -> None:
    for name, (content, _) in accepted().items():
        header = read_header(content, name)
        assert (header.height, header.width) == (HEIGHT, WIDTH)
        assert header.format == FORMATS[name.rpartition(".")[2]]
        assert header.channels in (None, 1 if name in GRAY_FILES else 3)
        assert header.plain is (name in PLAIN), name


def _prefixes(content: bytes) -> list[bytes]:
    return [content[:cut] for cut in range(len(content))]


def test_no_prefix_is_a_trap() -> None:
    for name, (content, _) in accepted().items():
        whole = read_header(content, name)
        for prefix in _prefixes(content[:600]):
            try:
                assert read_header(prefix, name) == whole, name
            except DataError as error:
                assert "does not decode" in str(error)


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def before_frame(content: bytes, inserted: bytes) -> bytes:
    place = content.index(b"\xff\xc0")
    return content[:place] + inserted + content[place:]


@pytest.mark.parametrize(
    "inserted",
    [
        *(
            b"\x00",
            b"stray",
            b"\xff",
            b"\xff\xff\xff",
            b"\xff\x00",
            b"\xff\x00\xff\x00",
            b"\x00\xff",
        ),
        *(b"\xff\xd0", b"\xff\x01", b"\xff\xfe\x00\x00", b"\xff\xfe\x00\x01", b"\xff\xe1\x00\x02"),
        segment(0xFE, b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01\x03" + b"x" * 9),
        segment(0xE1, jpeg(photograph(8, 8))),
    ],
    ids=lambda value: value[:8].hex(),
)
def test_bytes_between_segments_of_jpeg(inserted: bytes) -> None:
    """The decoder skips them, so a forged size behind them must be found as well."""
    content = before_frame(jpeg(photograph(20, 30)), inserted)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (20, 30, 3)
    assert read_header(content, "k") == ImageHeader("jpeg", 20, 30, 3, plain=True)
    place = content.rindex(b"\xff\xc0") + 5
    forged = content[:place] + struct.pack(">HH", 30000, 30000) + content[place + 4 :]
    with pytest.raises(DataError, match="k: the header claims 30000x30000 pixels; expected at mo"):
        datum.decode(forged, "k")


def test_a_second_frame_is_not_decoded() -> None:
    content = jpeg(photograph(20, 30))
    place = content.index(b"\xff\xc0")
    frame = content[place : place + 19]
    larger = frame[:5] + struct.pack(">HH", 8000, 8000) + frame[9:]
    for frames in (frame + larger, larger + frame):
        with pytest.raises(DataError, match="does not decode"):
            datum.decode(content[:place] + frames + content[place + 19 :], "k")


@pytest.mark.parametrize("marker", [0xC3, 0xC5, 0xC9, 0xCA, 0xCF])
def test_kinds_of_jpeg_that_only_some_decoders_read(marker: int) -> None:
    content = jpeg(photograph(20, 30)).replace(b"\xff\xc0", bytes((0xFF, marker)), 1)
    with pytest.raises(DataError, match="a lossless, hierarchical or arithmetic-coded JPEG"):
        read_header(content, "k")


def test_jpeg_with_work_without_end() -> None:
    progressive = written(PICTURE, "JPEG", progressive=True)
    place = progressive.index(b"\xff\xda")
    scan = progressive[place : progressive.index(b"\xff", place + 2)]
    with pytest.raises(DataError, match="a JPEG file of more than 500 scans"):
        datum.decode(progressive[:place] + scan * 501 + progressive[place:], "k")
    with pytest.raises(DataError, match="a JPEG file without a frame header"):
        read_header(b"\xff\xd8" + b"\xff\xd0" * 100_000, "k")


def test_the_first_chunk_of_png_and_no_other_has_the_size() -> None:
    content = written(PICTURE, "PNG")
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    for place in (33, len(content) - 12):
        with pytest.raises(DataError, match="a PNG file with two IHDR chunks"):
            read_header(content[:place] + header + content[place:], "k")
    comment = png_chunk(b"tEXt", b"a\0b")
    with pytest.raises(DataError, match="a PNG file that does not begin with IHDR"):
        read_header(content[:8] + comment + content[8:], "k")


@pytest.mark.parametrize("name", [b"IDAT", b"PLTE", b"tRNS", b"tEXt", b"fdAT", b"zzZz"])
@pytest.mark.parametrize("length", [1 << 12, (1 << 31) - 16, (1 << 32) - 16])
def test_a_chunk_of_png_that_ends_after_the_file(name: bytes, length: int) -> None:
    """The decoder would allocate it, and fill it with zeros."""
    content = written(PICTURE, "PNG")
    forged = content[:33] + struct.pack(">I", length) + name + content[33:]
    with pytest.raises(DataError, match=f"png header of {HEIGHT}x{WIDTH}, truncated or corrupt"):
        datum.decode(forged, "k")


def _forged() -> dict[str, bytes]:
    """Files that claim more pixels than are allowed, by name."""
    lossless = bytearray(written(PICTURE, "WEBP", lossless=True))
    lossless[21:25] = struct.pack("<I", 16382 | 16382 << 14)
    lossy = bytearray(written(PICTURE, "WEBP"))
    lossy[26:30] = struct.pack("<HH", 16383, 16383)
    bmp = bytearray(written(PICTURE, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    image = jpeg(photograph(16, 16))
    place = image.index(b"\xff\xc0") + 5
    return {
        "jpeg": image[:place] + struct.pack(">HH", 65500, 65500) + image[place + 4 :],
        "png": png(struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 2, 0, 0, 0), b""),
        "bmp": bytes(bmp),
        "ppm": b"P6 60000 60000 255\n",
        "pgm": b"P2\n2147483647 2147483647 255\n",
        "tiff": tiff("<", (256, "I", 1 << 16), (257, "I", 1 << 16)),
        "vp8l": bytes(lossless),
        "vp8": bytes(lossy),
    }


@pytest.mark.parametrize("name", _forged())
def test_sizes_above_the_limit(name: str) -> None:
    pattern = rf"k: the header claims \d+x\d+ pixels; expected at most {MAX_PIXELS} in all"
    with pytest.raises(DataError, match=pattern):
        datum.decode(_forged()[name], "k")


def test_short_files_of_many_pixels() -> None:
    """Below the limit of pixels, but more than a file of that length can hold."""
    place = (image := jpeg(photograph(16, 16))).index(b"\xff\xc0") + 5
    size = struct.pack(">HH", 11000, 11000)
    for content in (
        image[:place] + size + image[place + 4 :],
        png(struct.pack(">IIBBBBB", 11000, 11000, 1, 0, 0, 0, 0), bytes(100)),
        b"P6 11000 11000 255\n" + bytes(1000),
        b"P4 11000 11000\n" + bytes(1000),
    ):
        with pytest.raises(DataError, match="header of 11000x11000, truncated or corrupt"):
            read_header(content, "k")


def test_large_images_that_compress_well() -> None:
    """The check of lengths refuses none that is whole."""
    blank = np.full((1200, 1200), 255, np.uint8)
    for extension in ("jpg", "png", "bmp", "pgm", "tif", "webp"):
        content = cv2.imencode(f".{extension}", blank)[1].tobytes()
        header = read_header(content, extension)
        assert (header.height, header.width) == (1200, 1200)
    bits = png(struct.pack(">IIBBBBB", 1200, 1200, 1, 0, 0, 0, 0), bytes(151 * 1200))
    assert read_header(bits, "k").channels == 1
    sequential = cv2.imencode(".jpg", blank, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert read_header(sequential, "k").width == 1200


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (
            bytes.fromhex("474946383961ffffffff800000000000ffffff2c00000000ffffffff0002"),
            "a GIF file",
        ),
        (b"\0\0\0\x1cftypavif", "an AVIF or HEIC file"),
        (b"\xff\xd8\xff\xe0ftypavif", "an AVIF or HEIC file"),
        (b"BM\0\0ftypavif", "an AVIF or HEIC file"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file"),
        (b"\xff\x4f\xff\x51\0\x2f", "a JPEG 2000 file"),
        (b"v/1\x01", "an OpenEXR file"),
        (b"#?RADIANCE\n", "a Radiance HDR file"),
        (b"\x59\xa6\x6a\x95", "a Sun raster file"),
        (b"P7\nWIDTH 3", "a PAM file"),
        (b"PF\n3 2", "a PFM file"),
        (b"II\x2b\0\x08\0\0\0", "a BigTIFF file"),
        (b"\xff\xd8", "no image header"),
        (b"RIFF\0\0\0\0WAVE", "no image header"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:4].hex(),
)
def test_formats_that_are_refused_by_name(start: bytes, words: str) -> None:
    pattern = rf"k: the image does not decode \(64 bytes, {words}\); expected a whole JPEG, PNG, B"
    with pytest.raises(DataError, match=pattern):
        datum.decode(start.ljust(64, b"\0"), "k")
