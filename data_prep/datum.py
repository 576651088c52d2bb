"""Datum, Caffe's database record: raw bytes, floats, or an encoded image, with a label.

Images are (H, W, C) everywhere in this package, in the channel order of the record: BGR for colour.
A raw Datum stores (C, H, W); its image is a transposed view, so nothing is copied.

`decode` is the only reader of image files. docs/reference/images.md lists the accepted formats and
the resulting pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_prep.image_file import (
    TIFF,
    read_header,
    undecodable,
    without_orientation,
)
from prototxt_gen import proto
from prototxt_gen.errors import DataError

Image = npt.NDArray[Any]
"""(H, W, C), uint8 or float32."""

NATIVE, COLOR, GRAY = "native", "color", "gray"
"""Channels of decoded images: 1 if the file is gray, else 3 (Caffe's default); 3; 1."""

_FLAGS = {
    NATIVE: cv2.IMREAD_ANYCOLOR,
    COLOR: cv2.IMREAD_COLOR,
    GRAY: cv2.IMREAD_GRAYSCALE,
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
"""The formats that `encode` supports; `decode` accepts all of them."""


def parse(record: bytes, name: str) -> proto.Message:
    """Parse a serialised Datum.

    Raises:
        DataError: the bytes are not a Datum.
    """
    try:
        return proto.Datum.FromString(record)
    except DecodeError as cause:
        raise DataError(
            f"{name}: not a Datum message ({cause}); expected a record written by "
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


def to_array(datum: proto.Message, name: str = "datum_to_array") -> npt.NDArray[Any]:
    """The pixels of a Datum, decoded if needed.

    Shapes: (C, H, W), contiguous; uint8, or float32 for `float_data`.
    """
    return np.ascontiguousarray(image_of(datum, name).transpose(2, 0, 1))


def image_of(datum: proto.Message, name: str, mode: str = NATIVE) -> Image:
    """The image in a Datum; `mode` is used for encoded images only.

    Shapes: (H, W, C), uint8, or float32 for `float_data`.

    Raises:
        DataError: the image does not decode, or the sizes do not fit the data.
    """
    if datum.encoded:
        return decode(datum.data, name, mode)
    shape = (datum.channels, datum.height, datum.width)
    # The sizes are compared with the stored data, so a forged size allocates nothing.
    if len(datum.data):
        values = np.frombuffer(datum.data, dtype=np.uint8)
    else:
        values = np.fromiter(datum.float_data, np.float32, len(datum.float_data))
    if min(shape) <= 0 or shape[0] * shape[1] * shape[2] != values.size:
        raise DataError(
            f"{name}: Datum of {shape[0]}x{shape[1]}x{shape[2]} with {values.size} values; "
            "expected channels x height x width values; the record is corrupt: "
            "make the database again"
        )
    return values.reshape(shape).transpose(1, 2, 0)


def decode(data: bytes, name: str, mode: str = NATIVE) -> Image:
    """Decode the bytes of an image file; colour is BGR.

    Orientation tags are ignored, transparency is dropped, and 16 bits are cut to the upper 8.

    Shapes: (H, W, C), uint8.

    Raises:
        DataError: the format is not accepted, the file is damaged, or larger than MAX_PIXELS.
    """
    header = read_header(data, name)
    content = without_orientation(data) if header.format == TIFF else data
    image = _imdecode(content, _FLAGS[mode])
    if image is None or image.shape[:2] != (header.height, header.width):
        described = f"{header.format} header of {header.height}x{header.width}"
        raise undecodable(data, name, f"{described}, truncated or corrupt")
    return image if image.ndim == 3 else image[:, :, None]


def _imdecode(data: bytes, flags: int) -> Image | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def encode(image: Image, extension: str, quality: int, name: str) -> bytes:
    """Encode an image as `extension`, one of ENCODINGS; `quality` is that of JPEG, 1 to 100.

    Shapes: image (H, W, C) or (H, W).

    Raises:
        DataError: the format is unknown or does not support the image.
    """
    suffix = _ENCODINGS.get(extension.lower().lstrip("."))
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    try:
        done, data = cv2.imencode(suffix or "", np.ascontiguousarray(image), options)
    except cv2.error:
        done = False
    encoded = bytes(data.tobytes()) if done else b""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if not done or read_header(encoded, name).channels not in (None, channels):
        raise DataError(
            f"{name}: an image of {image.shape} cannot be encoded as {extension!r}; expected a "
            f"format that takes it, one of {', '.join(sorted(ENCODINGS))}; choose jpg or png"
        )
    return encoded
