"""Image files before they are decoded: their bytes, their format and their size.

Each parser reads the field that OpenCV's decoder allocates the image from. It raises ValueError,
IndexError or struct.error for a file that the decoder could read with another size, and for
variants of a format that decoders of different versions read differently.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.integers import ceil_div

FORMATS = "JPEG, PNG, BMP, PBM, PGM, PPM, TIFF or WebP"
MAX_PIXELS = 1 << 27
"""The most pixels of an image. The largest photograph of ILSVRC-2012 has 34 million."""
# Four channels of 16 bits.
_MAX_BYTES = 8 * MAX_PIXELS

JPEG, PNG, BMP, PNM, TIFF, WEBP = "jpeg", "png", "bmp", "pnm", "tiff", "webp"


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of an image file.

    `channels` is 1 for gray and 3 for colour, None if only decoding determines it. `plain` files
    have at most 8 bits per channel and no transparency: all versions of OpenCV decode them alike.

    Units: height and width in pixels.
    """

    format: str
    height: int
    width: int
    channels: int | None = None
    plain: bool = False


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read the bytes of an image file.

    Raises:
        DataError: the file is missing, not a regular file, or larger than any accepted image.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            reason = "it is not a regular file"
        elif status.st_size > _MAX_BYTES:
            reason = f"it has {status.st_size} bytes, more than {_MAX_BYTES}"
        else:
            return Path(path).read_bytes()
    except (OSError, ValueError) as cause:
        reason = cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
    raise DataError(
        f"{path}: cannot be read: {reason}; expected an image file; check the path, or the list "
        "that names it"
    )


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


_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_COMPRESSION, _TIFF_PHOTOMETRIC, _TIFF_ORIENTATION = 259, 262, 274
_TIFF_SAMPLES, _TIFF_ROWS_PER_STRIP = 277, 278
_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 322, 323

_TIFF_NUMBER_TYPES = {1: "B", 3: "H", 4: "I"}
_TIFF_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""The size of a value of each type, if it is not 1."""
_TIFF_SHORT = 3
_TIFF_UPRIGHT = 1
# None, CCITT (three kinds), LZW, JPEG, deflate (two numbers), PackBits. Others hold a second size,
# or need libraries that not every OpenCV is built with.
_TIFF_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32946, 32773})
# Gray (two kinds), RGB, palette, CMYK, YCbCr.
_TIFF_PHOTOMETRICS = frozenset({0, 1, 2, 3, 5, 6})
_TIFF_MOST_SAMPLES = 4
_TIFF_UNLIMITED = (1 << 32) - 1


@dataclass(frozen=True)
class _TiffDirectory:
    data: bytes
    order: str
    entries: dict[int, int]
    """Position of the entry of each tag."""

    def number(self, tag: int, default: int | None = None) -> int:
        """The value of a field of one number."""
        if tag not in self.entries:
            if default is None:
                raise ValueError(f"a TIFF directory without field {tag}")
            return default
        position = self.entries[tag]
        kind, count = struct.unpack_from(self.order + "HI", self.data, position + 2)
        if kind not in _TIFF_NUMBER_TYPES or count != 1:
            raise ValueError(f"a TIFF directory with {count} values of type {kind} in field {tag}")
        (value,) = struct.unpack_from(
            self.order + _TIFF_NUMBER_TYPES[kind], self.data, position + 8
        )
        return int(value)


def _tiff_directory(data: bytes) -> _TiffDirectory:
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    entries: dict[int, int] = {}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, position)
        if tag in entries:
            raise ValueError(f"a TIFF directory with two fields {tag}")
        if values * _TIFF_TYPE_BYTES.get(kind, 1) > len(data):
            raise ValueError(f"a TIFF directory with {values} values in field {tag}")
        entries[tag] = position
    return _TiffDirectory(data, order, entries)


def read_tiff(data: bytes) -> ImageHeader:
    """Read the size of the first image, and check the sizes of what else the decoder allocates.

    Raises:
        ValueError, struct.error: see above.
    """
    directory = _tiff_directory(data)
    width, height = directory.number(_TIFF_WIDTH), directory.number(_TIFF_HEIGHT)
    compression, photometric = (
        directory.number(_TIFF_COMPRESSION, 1),
        directory.number(_TIFF_PHOTOMETRIC),
    )
    if compression not in _TIFF_COMPRESSIONS or photometric not in _TIFF_PHOTOMETRICS:
        raise ValueError(f"a TIFF file of compression {compression}, photometric {photometric}")
    if not 1 <= directory.number(_TIFF_SAMPLES, 1) <= _TIFF_MOST_SAMPLES:
        raise ValueError(f"a TIFF file of more than {_TIFF_MOST_SAMPLES} channels")
    if 0 < height * width <= MAX_PIXELS:
        _check_tiff_pieces(directory, height, width)
    return ImageHeader(TIFF, height, width)


def _check_tiff_pieces(directory: _TiffDirectory, height: int, width: int) -> None:
    rows, columns = _tiff_piece(directory, height, width)
    if min(rows, columns) < 1 or rows * columns > MAX_PIXELS:
        raise ValueError(f"a TIFF file in tiles or strips of {rows}x{columns}")
    # The directory holds an offset of two bytes or more for each piece.
    if ceil_div(height, rows) * ceil_div(width, columns) * 2 > len(directory.data):
        raise ValueError(f"{TIFF} header of {height}x{width}, truncated or corrupt")


def _tiff_piece(directory: _TiffDirectory, height: int, width: int) -> tuple[int, int]:
    if {_TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT} & directory.entries.keys():
        return directory.number(_TIFF_TILE_HEIGHT), directory.number(_TIFF_TILE_WIDTH)
    rows = directory.number(_TIFF_ROWS_PER_STRIP, _TIFF_UNLIMITED)
    return (height if rows == _TIFF_UNLIMITED else rows), width


def without_orientation(data: bytes) -> bytes:
    """Mark the first image as upright: the decoder would turn it by its Orientation field."""
    directory = _tiff_directory(data)
    position = directory.entries.get(_TIFF_ORIENTATION)
    if position is None:
        return data
    entry = struct.pack(
        directory.order + "HHIHH", _TIFF_ORIENTATION, _TIFF_SHORT, 1, _TIFF_UPRIGHT, 0
    )
    return data[:position] + entry + data[position + len(entry) :]


_READERS: tuple[tuple[bytes, Callable[[bytes], ImageHeader]], ...] = (
    (b"\xff\xd8\xff", read_jpeg),
    (b"\x89PNG\r\n\x1a\n", read_png),
    (b"BM", read_bmp),
    (b"II\x2a\0", read_tiff),
    (b"MM\0\x2a", read_tiff),
    *((b"P%d" % number, read_pnm) for number in range(1, 7)),
)
# Formats that some versions of OpenCV decode, at sizes that only they can read.
_REFUSED = (
    (b"GIF8", "a GIF file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 file"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file"),
    (b"\xff\x0a", "a JPEG XL file"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?R", "a Radiance HDR file"),
    (b"\x59\xa6\x6a\x95", "a Sun raster file"),
    (b"P7", "a PAM file"),
    (b"PF", "a PFM file"),
    (b"Pf", "a PFM file"),
    (b"II\x2b\0", "a BigTIFF file"),
    (b"MM\0\x2b", "a BigTIFF file"),
)


def read_header(data: bytes, name: str) -> ImageHeader:
    """Read the format and the size of a complete image file.

    Raises:
        DataError: the format is not one of FORMATS, the header is damaged, or the image has more
            than MAX_PIXELS pixels.
    """
    try:
        header = _reader(data)(data)
    except (IndexError, struct.error) as cause:
        raise undecodable(data, name, "a header that is truncated or corrupt") from cause
    except ValueError as cause:
        raise undecodable(data, name, str(cause)) from cause
    if min(header.height, header.width) < 1:
        raise undecodable(data, name, f"a {header.format} header without a size")
    if header.height * header.width > MAX_PIXELS:
        raise DataError(
            f"{name}: the header claims {header.height}x{header.width} pixels; expected at most "
            f"{MAX_PIXELS} in all; the image is corrupt or must be made smaller"
        )
    return header


def undecodable(data: bytes, name: str, description: str) -> DataError:
    """The error for a file that is not decoded."""
    return DataError(
        f"{name}: the image does not decode ({len(data)} bytes, {description}); expected a whole "
        f"{FORMATS} image; replace the file, or leave it out"
    )


def _reader(data: bytes) -> Callable[[bytes], ImageHeader]:
    if data[4:8] == b"ftyp":
        # Before the other signatures, as in OpenCV.
        raise ValueError("an AVIF or HEIC file")
    for signature, reader in _READERS:
        if data.startswith(signature):
            return reader
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return read_webp
    for signature, kind in _REFUSED:
        if data.startswith(signature):
            raise ValueError(kind)
    raise ValueError("no image header" if data else "empty")
