"""Datum, Caffe's database record: raw bytes, floats, or an encoded image, with a label.

Images are (H, W, C) everywhere in this package, in the channel order of the record: BGR for colour.
A raw Datum stores (C, H, W) and is seen through a transposed view, so nothing is copied.

`decode` is the only reader of image files. docs/reference/images.md lists the accepted formats and
the resulting pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_prep.image_formats import JPEG, TIFF
from data_prep.image_header import ImageHeader, read_header, undecodable
from data_prep.tiff_header import without_orientation
from prototxt_gen import proto
from prototxt_gen.errors import DataError

Image = npt.NDArray[Any]
"""(H, W, C), uint8 or float32."""

NATIVE, COLOR, GRAY = "native", "color", "gray"
"""How to decode: to 1 channel if the file is gray and 3 if not (Caffe's default), to 3, to 1."""

_FLAGS = {
    NATIVE: cv2.IMREAD_ANYCOLOR,
    COLOR: cv2.IMREAD_COLOR,
    GRAY: cv2.IMREAD_GRAYSCALE,
}
_REDUCED = {
    (COLOR, 2): cv2.IMREAD_REDUCED_COLOR_2,
    (COLOR, 4): cv2.IMREAD_REDUCED_COLOR_4,
    (COLOR, 8): cv2.IMREAD_REDUCED_COLOR_8,
    (GRAY, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    (GRAY, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    (GRAY, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_ENCODINGS = {
    "bmp": ".bmp",
    "dib": ".bmp",
    "jpe": ".jpg",
    "jpeg": ".jpg",
    "jpg": ".jpg",
    "pbm": ".pnm",
    "pgm": ".pnm",
    "png": ".png",
    "pnm": ".pnm",
    "ppm": ".pnm",
    "tif": ".tiff",
    "tiff": ".tiff",
    "webp": ".webp",
}
ENCODINGS = frozenset(_ENCODINGS)
"""Names of formats that `encode` takes; each is one that `decode` accepts."""


def parse(record: bytes, where: str) -> proto.Message:
    """Parse a serialised Datum.

    Raises:
        DataError: the bytes are not a Datum.
    """
    try:
        return proto.Datum.FromString(record)
    except DecodeError as cause:
        raise DataError(
            f"{where}: not a Datum message ({cause}); expected a record written by "
            "convert_imageset; make the database again"
        ) from cause


def from_array(image: npt.NDArray[Any], label: int) -> proto.Message:
    """Make a raw Datum from an array: uint8 goes to `data`, anything else to `float_data`.

    Shapes: image (C, H, W), as in Caffe's own array_to_datum.
    """
    if image.ndim != 3:
        raise DataError(
            f"array_to_datum: an array of shape {image.shape}; expected (channels, height, width)"
        )
    datum = proto.Datum(label=label)
    datum.channels, datum.height, datum.width = image.shape
    if image.dtype == np.uint8:
        datum.data = image.tobytes()
    else:
        datum.float_data.extend(image.astype(np.float32).ravel())
    return datum


def from_encoded(data: bytes, label: int) -> proto.Message:
    """Wrap the bytes of an image file; the three sizes stay unset, as in Caffe."""
    return proto.Datum(data=data, label=label, encoded=True)


def to_array(datum: proto.Message, where: str = "datum_to_array") -> npt.NDArray[Any]:
    """The pixels of a Datum, decoded where needed.

    Shapes: (C, H, W), contiguous; uint8, or float32 for `float_data`.
    """
    return np.ascontiguousarray(image_of(datum, where).transpose(2, 0, 1))


def image_of(datum: proto.Message, where: str, mode: str = NATIVE, short_side: int = 0) -> Image:
    """The image in a Datum.

    `mode` and `short_side` matter for encoded images only; see `decode`.

    Raises:
        DataError: the image does not decode, or the sizes do not fit the data.
    """
    if datum.encoded:
        return decode(datum.data, where, mode, short_side)
    shape = (datum.channels, datum.height, datum.width)
    # The sizes are compared with the data that is there: a forged one never allocates anything.
    if len(datum.data):
        values = np.frombuffer(datum.data, dtype=np.uint8)
    else:
        values = np.fromiter(datum.float_data, np.float32, len(datum.float_data))
    if min(shape) <= 0 or shape[0] * shape[1] * shape[2] != values.size:
        raise DataError(
            f"{where}: Datum of {shape[0]}x{shape[1]}x{shape[2]} with {values.size} values; "
            "expected channels x height x width values; the record is corrupt: "
            "make the database again"
        )
    return values.reshape(shape).transpose(1, 2, 0)


def decode(data: bytes, where: str, mode: str = NATIVE, short_side: int = 0) -> Image:
    """Decode the bytes of an image file to (H, W, C) uint8, BGR for colour.

    Orientation tags are ignored, transparency is dropped, 16 bits are cut to the upper 8.

    With `short_side` above 0 a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is quicker
    and slightly softer, as long as its short side stays at least that long.

    Raises:
        DataError: the bytes are no image of an accepted format, damaged, or larger than MAX_PIXELS.
    """
    header = read_header(data, where)
    reduced = _reduced_flags(header, mode, short_side)
    flags = _FLAGS[mode] if reduced is None else reduced
    image = _imdecode(without_orientation(data) if header.format == TIFF else data, flags)
    if image is None or (reduced is None and image.shape[:2] != (header.height, header.width)):
        described = f"{header.format} header of {header.height}x{header.width}"
        raise undecodable(data, where, f"{described}, truncated or corrupt")
    return image if image.ndim == 3 else image[:, :, None]


def _reduced_flags(header: ImageHeader, mode: str, short_side: int) -> int | None:
    if not short_side or header.format != JPEG:
        return None
    smaller = min(header.height, header.width)
    for factor in (8, 4, 2):
        if smaller // factor >= short_side and (mode, factor) in _REDUCED:
            return _REDUCED[mode, factor]
    return None


def _imdecode(data: bytes, flags: int) -> Image | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def encode(image: Image, extension: str, quality: int, where: str) -> bytes:
    """Encode an image as `extension`, one of ENCODINGS; `quality` is JPEG's, 1 to 100.

    Raises:
        DataError: the format is unknown or does not take the image.
    """
    name = _ENCODINGS.get(extension.lower().lstrip("."))
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if name == ".jpg" else []
    try:
        done, data = cv2.imencode(name or "", np.ascontiguousarray(image), options)
    except cv2.error:
        done = False
    encoded = bytes(data.tobytes()) if done else b""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if not done or read_header(encoded, where).channels not in (None, channels):
        raise DataError(
            f"{where}: an image of {image.shape} cannot be encoded as {extension!r}; expected a "
            f"format that takes it, one of {', '.join(sorted(ENCODINGS))}; choose jpg or png"
        )
    return encoded
