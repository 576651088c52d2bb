"""Sizes of image files, read from their headers without decoding.

Each parser reads the field that OpenCV's decoder allocates the image from. It raises ValueError,
IndexError or struct.error for a file that the decoder could read with another size, and for
variants of a format that decoders of different versions read differently.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

MAX_PIXELS = 1 << 27
"""The most pixels of an image. The largest photograph of ILSVRC-2012 has 34 million."""

JPEG, PNG, BMP, PNM, TIFF, WEBP = "jpeg", "png", "bmp", "pnm", "tiff", "webp"


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of an image file.

    `channels` is 1 for gray and 3 for colour, None where only decoding determines it. `plain` files
    have 8 bits a channel at most and no transparency: every version of OpenCV decodes them alike.
    """

    format: str
    height: int
    width: int
    channels: int | None = None
    plain: bool = False


def _check_length(name: str, height: int, width: int, most: int) -> None:
    """Refuse a file that is too short for its pixels, of which it can hold `most`.

    Sizes above MAX_PIXELS are left to the check of that limit.
    """
    if most < height * width <= MAX_PIXELS:
        raise ValueError(f"{name} header of {height}x{width}, truncated or corrupt")


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_JPEG_BARE = frozenset(range(0xD0, 0xD8)) | {0x01}
# C4, C8 and CC are in the range of the start-of-frame markers but have other meanings.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BASELINE, _JPEG_EXTENDED, _JPEG_PROGRESSIVE = 0xC0, 0xC1, 0xC2
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_END_BYTES, _JPEG_SCAN_BYTES = b"\xff\xd9", b"\xff\xda"
_JPEG_MOST_MARKERS = 4096
_JPEG_MOST_SCANS = 500
# A block of a component that is sampled at a quarter covers 32x32 pixels and takes a bit or more.
_JPEG_PIXELS_PER_BYTE = 8 * 32 * 32


def read_jpeg(data: bytes) -> ImageHeader:
    """Read the first frame header, as libjpeg does: bytes between segments are skipped."""
    position = 2
    for _ in range(_JPEG_MOST_MARKERS):
        match = _JPEG_MARKER.search(data, position)
        if match is None:
            break
        position = match.end()
        marker = data[position - 1]
        if marker in _JPEG_BARE:
            continue
        if marker in (_JPEG_END, _JPEG_SCAN):
            break
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_FRAMES:
            return _read_frame(data, marker, position + 2)
        position += max(length, 2)
    raise ValueError("a JPEG file without a frame header")


def _read_frame(data: bytes, marker: int, position: int) -> ImageHeader:
    if marker not in (_JPEG_BASELINE, _JPEG_EXTENDED, _JPEG_PROGRESSIVE):
        raise ValueError("a lossless, hierarchical or arithmetic-coded JPEG file")
    _precision, height, width, components = struct.unpack_from(">BHHB", data, position)
    # Versions of OpenCV differ in what they make of a file that is cut off.
    whole = data.rfind(_JPEG_END_BYTES, position) >= 0
    _check_length(JPEG, height, width, _JPEG_PIXELS_PER_BYTE * len(data) if whole else 0)
    if marker == _JPEG_PROGRESSIVE and data.count(_JPEG_SCAN_BYTES) > _JPEG_MOST_SCANS:
        raise ValueError(f"a JPEG file of more than {_JPEG_MOST_SCANS} scans")
    channels = 1 if components == 1 else 3
    return ImageHeader(JPEG, height, width, channels, plain=components in (1, 3))


_PNG_GRAY, _PNG_COLOUR, _PNG_PALETTE = 0, 2, 3
# deflate compresses 1032 to 1 at best, and a pixel has one bit or more.
_PNG_PIXELS_PER_BYTE = 8 * 1032


def read_png(data: bytes) -> ImageHeader:
    """Read IHDR, and check that every chunk up to IEND is inside the file.

    The decoder allocates the length that a chunk claims.
    """
    if data[8:16] != b"\0\0\0\rIHDR":
        raise ValueError("a PNG file that does not begin with IHDR")
    width, height, depth, kind = struct.unpack_from(">IIBB", data, 16)
    transparent = False
    position, name = 8 + 25, b"IHDR"
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if position > len(data):
            raise ValueError(f"{PNG} header of {height}x{width}, truncated or corrupt")
        if name == b"IHDR":
            raise ValueError("a PNG file with two IHDR chunks")
        if name == b"acTL":
            raise ValueError("an animated PNG file")
        transparent = transparent or name == b"tRNS"
    _check_length(PNG, height, width, _PNG_PIXELS_PER_BYTE * len(data))
    plain = depth <= 8 and kind in (_PNG_GRAY, _PNG_COLOUR, _PNG_PALETTE) and not transparent
    return ImageHeader(PNG, height, width, 1 if kind == _PNG_GRAY else 3, plain)


_BMP_HEADER = 40
_BMP_UNCOMPRESSED = (0, 3)


def read_bmp(data: bytes) -> ImageHeader:
    """Read BITMAPINFOHEADER or a later one; a negative height means rows from the top."""
    size, width, height = struct.unpack_from("<Iii", data, 14)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if size < _BMP_HEADER:
        raise ValueError(f"a BMP file with a header of {size} bytes, older than Windows 3")
    height = abs(height)
    if compression in _BMP_UNCOMPRESSED:
        _check_length(BMP, height, width, 8 * len(data) // max(bits, 1))
    return ImageHeader(BMP, height, width)


# A number ends with white space; comments may follow it. OpenCV drops the character after a number.
_PNM_GAP = rb"\s(?:\s|#[^\r\n]*[\r\n])*"
_PNM_HEADER = re.compile(rb"P([1-6])" + 2 * (_PNM_GAP + rb"(\d{1,10})") + rb"\s")
_PNM_HEADER_BYTES = 1 << 16
_PNM_COLOUR, _PNM_PACKED = (b"3", b"6"), b"4"


def read_pnm(data: bytes) -> ImageHeader:
    """Read the header of PBM, PGM and PPM, text or binary."""
    match = _PNM_HEADER.match(data, 0, _PNM_HEADER_BYTES)
    if match is None:
        raise ValueError("a PBM, PGM or PPM header without a size")
    kind, width, height = match[1], int(match[2]), int(match[3])
    _check_length(PNM, height, width, len(data) * (8 if kind == _PNM_PACKED else 1))
    return ImageHeader(PNM, height, width, 3 if kind in _PNM_COLOUR else 1)


_WEBP_ANIMATED = 0x02


def read_webp(data: bytes) -> ImageHeader:
    """Read the frame's header; the canvas of an extended file must have the same size."""
    position, canvas = 12, None
    name, size = struct.unpack_from("<4sI", data, position)
    if name == b"VP8X":
        flags, width, height = struct.unpack_from("<B3x3s3s", data, position + 8)
        if flags & _WEBP_ANIMATED:
            raise ValueError("an animated WebP file")
        canvas = _uint24(height) + 1, _uint24(width) + 1
    while name not in (b"VP8 ", b"VP8L"):
        if canvas is None:
            raise ValueError("a WebP file without an image")
        position += 8 + size + size % 2
        name, size = struct.unpack_from("<4sI", data, position)
    frame = _webp_frame(data, position + 8, lossless=name == b"VP8L")
    if canvas not in (None, frame):
        raise ValueError(f"a WebP canvas of {canvas} with a frame of {frame}")
    return ImageHeader(WEBP, *frame, channels=3)


def _webp_frame(data: bytes, position: int, *, lossless: bool) -> tuple[int, int]:
    if lossless:
        signature, sizes = struct.unpack_from("<BI", data, position)
        if signature != 0x2F:
            raise ValueError("a WebP file with a corrupt image header")
        return (sizes >> 14 & 0x3FFF) + 1, (sizes & 0x3FFF) + 1
    signature, width, height = struct.unpack_from("<3x3sHH", data, position)
    if signature != b"\x9d\x01\x2a":
        raise ValueError("a WebP file with a corrupt image header")
    return height & 0x3FFF, width & 0x3FFF


def _uint24(field: bytes) -> int:
    return int.from_bytes(field, "little")
