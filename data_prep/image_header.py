"""Which format an image file has, and its size, before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable

from data_prep import image_formats as formats
from data_prep.image_formats import MAX_PIXELS, ImageHeader
from data_prep.tiff_header import read_tiff
from prototxt_gen.errors import DataError

__all__ = ["FORMATS", "MAX_PIXELS", "ImageHeader", "read_header"]

FORMATS = "JPEG, PNG, BMP, PBM, PGM, PPM, TIFF or WebP"

_READERS: tuple[tuple[bytes, Callable[[bytes], ImageHeader]], ...] = (
    (b"\xff\xd8\xff", formats.read_jpeg),
    (b"\x89PNG\r\n\x1a\n", formats.read_png),
    (b"BM", formats.read_bmp),
    (b"II\x2a\0", read_tiff),
    (b"MM\0\x2a", read_tiff),
    *((b"P%d" % number, formats.read_pnm) for number in range(1, 7)),
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


def read_header(data: bytes, where: str) -> ImageHeader:
    """Read format and size of a whole image file.

    Raises:
        DataError: the format is not one of FORMATS, the header is damaged, or the image has more
            than MAX_PIXELS pixels.
    """
    try:
        header = _reader(data)(data)
    except (IndexError, struct.error) as cause:
        raise undecodable(data, where, "a header that is truncated or corrupt") from cause
    except ValueError as cause:
        raise undecodable(data, where, str(cause)) from cause
    if min(header.height, header.width) < 1:
        raise undecodable(data, where, f"a {header.format} header without a size")
    if header.height * header.width > MAX_PIXELS:
        raise DataError(
            f"{where}: the header claims {header.height}x{header.width} pixels; expected at most "
            f"{MAX_PIXELS} in all; the image is corrupt or must be made smaller"
        )
    return header


def undecodable(data: bytes, where: str, description: str) -> DataError:
    """The error of a file that is not decoded."""
    return DataError(
        f"{where}: the image does not decode ({len(data)} bytes, {description}); expected a whole "
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
        return formats.read_webp
    for signature, name in _REFUSED:
        if data.startswith(signature):
            raise ValueError(name)
    raise ValueError("no image header" if data else "empty")
