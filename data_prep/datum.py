"""Datum, Caffe's database record: raw bytes, floats, or an encoded image, with a label.

Images are (H, W, C) everywhere in this package, in the channel order of the record: BGR for colour.
A raw Datum stores (C, H, W) and is seen through a transposed view, so nothing is copied.

Orientation tags (EXIF) are ignored, as in the OpenCV of the paper's time: pixels stay as stored,
and bounding boxes, which are written for the stored pixels, keep fitting.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_prep.image_header import MAX_PIXELS, read_header
from prototxt_gen import proto
from prototxt_gen.errors import DataError

Image = npt.NDArray[Any]
"""(H, W, C), uint8 or float32."""

NATIVE, COLOR, GRAY = "native", "color", "gray"
"""How to decode: the channels the file has (Caffe's default), always 3, always 1."""

_FLAGS = {
    NATIVE: cv2.IMREAD_UNCHANGED,
    COLOR: cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION,
    GRAY: cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
_REDUCED = {
    (COLOR, 2): cv2.IMREAD_REDUCED_COLOR_2,
    (COLOR, 4): cv2.IMREAD_REDUCED_COLOR_4,
    (COLOR, 8): cv2.IMREAD_REDUCED_COLOR_8,
    (GRAY, 2): cv2.IMREAD_REDUCED_GRAYSCALE_2,
    (GRAY, 4): cv2.IMREAD_REDUCED_GRAYSCALE_4,
    (GRAY, 8): cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


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

    With `short_side` above 0 a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, which is quicker
    and slightly softer, as long as its short side stays at least that long.

    Raises:
        DataError: the bytes are no image, an image of other than 8 bits, or forged.
    """
    flags = _FLAGS[mode]
    header = read_header(data)
    if header is not None:
        if header.height * header.width > MAX_PIXELS:
            raise DataError(
                f"{where}: the header claims {header.height}x{header.width} pixels; expected at "
                f"most {MAX_PIXELS} in all; the image is corrupt or must be made smaller"
            )
        if short_side and header.format == "jpeg":
            smaller = min(header.height, header.width)
            for factor in (8, 4, 2):
                if smaller // factor >= short_side and (mode, factor) in _REDUCED:
                    flags = _REDUCED[mode, factor] | cv2.IMREAD_IGNORE_ORIENTATION
                    break
    image = _imdecode(data, flags)
    if image is None:
        raise DataError(
            f"{where}: the image does not decode ({len(data)} bytes, "
            f"{_describe(data)}); expected a whole JPEG or PNG; replace the file, or skip it"
        )
    if image.dtype != np.uint8:
        raise DataError(
            f"{where}: an image of {image.dtype}; expected 8 bits a channel; "
            "set force_color or force_gray, or convert the image"
        )
    return image if image.ndim == 3 else image[:, :, None]


def _imdecode(data: bytes, flags: int) -> Image | None:
    if not data:
        return None
    try:
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None


def _describe(data: bytes) -> str:
    header = read_header(data)
    if header is not None:
        return f"{header.format} header of {header.height}x{header.width}, truncated or corrupt"
    return "no JPEG or PNG header" if data else "empty"


def encode(image: Image, extension: str, quality: int, where: str) -> bytes:
    """Encode an image as `extension` ("jpg", "png" ...); `quality` is JPEG's, 1 to 100.

    Raises:
        DataError: the format is unknown or does not take the image.
    """
    name = "." + extension.lower().lstrip(".")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if name in (".jpg", ".jpeg") else []
    try:
        done, data = cv2.imencode(name, np.ascontiguousarray(image), options)
    except cv2.error as cause:
        raise DataError(
            f"{where}: an image of {image.shape} cannot be encoded as {extension!r}; "
            "expected a format OpenCV writes, such as jpg or png"
        ) from cause
    if not done:
        raise DataError(f"{where}: encoding as {extension!r} failed; try jpg or png")
    return bytes(data.tobytes())
