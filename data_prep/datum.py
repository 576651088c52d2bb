"""Images: Caffe's Datum records, decoding, encoding, resizing, and writing into a batch.

A Datum has raw bytes, floats, or an encoded image, and a label.

Images are (H, W, C) everywhere in this package, in the channel order of the record: BGR for colour.
A raw Datum stores (C, H, W); its image is a transposed view, so nothing is copied.

`decode` is the only reader of image files. docs/reference/images.md lists the accepted formats and
the resulting pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from data_prep.image_file import (
    MAX_PIXELS,
    TIFF,
    read_header,
    undecodable,
    without_orientation,
)
from prototxt_gen import proto
from prototxt_gen.errors import DataError

Image = npt.NDArray[Any]
"""(H, W, C), uint8 or float32."""
Floats = npt.NDArray[np.float32]
Writer = Callable[[Image, bool, Floats | None, Floats | None, float, Floats], None]
"""Writes a crop into a batch; see `write_crop`."""

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


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width after resizing to a short side; the other side is rounded half up.

    Units: pixels.
    """
    smaller = min(height, width)
    return (
        max(short_side, (2 * height * short_side + smaller) // (2 * smaller)),
        max(short_side, (2 * width * short_side + smaller) // (2 * smaller)),
    )


def rescale_short_side(image: Image, short_side: int, name: str = "resize") -> Image:
    """Rescale isotropically to a short side in pixels; `name` is for errors.

    An image that shrinks is averaged by area, because bilinear interpolation would alias; one that
    grows is interpolated bilinearly.

    Shapes: image (H, W, C), result (h, w, C), with min(h, w) == short_side.

    Raises:
        DataError: the result would have more than MAX_PIXELS pixels.

    Paper: section 3.1, S, "the smallest side of an isotropically-rescaled training image".
    """
    height, width = short_side_size(image.shape[0], image.shape[1], short_side)
    shrinks = short_side < min(image.shape[:2])
    return _resize(image, height, width, cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR, name)


def warp(image: Image, height: int, width: int, name: str = "resize") -> Image:
    """Resize to height x width pixels, bilinearly, as Caffe's resize_height and resize_width.

    Shapes: image (H, W, C), result (height, width, C).

    Raises:
        DataError: the result would have no pixels, or more than MAX_PIXELS.
    """
    return _resize(image, height, width, cv2.INTER_LINEAR, name)


def _resize(image: Image, height: int, width: int, interpolation: int, name: str) -> Image:
    if image.shape[:2] == (height, width):
        return image
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise DataError(
            f"{name}: a size of {height}x{width}; expected at least 1x1 and at most {MAX_PIXELS} "
            f"pixels in all, from {image.shape[0]}x{image.shape[1]}; choose another size"
        )
    try:
        resized: Image = cv2.resize(
            np.ascontiguousarray(image), (width, height), interpolation=interpolation
        )
    except cv2.error as cause:
        raise DataError(
            f"{name}: resizing an image of shape {image.shape}, {image.dtype}, to "
            f"{height}x{width} failed ({cause.err}); expected pixels of 8 bits or float32; "
            "make the record again"
        ) from cause
    return resized if resized.ndim == 3 else resized[:, :, None]


def write_crop(
    crop: Image,
    mirror: bool,
    offsets: Floats | None,
    mean: Floats | None,
    scale: float,
    out: Floats,
) -> None:
    """Write ((pixel - offset) - mean) * scale, mirrored or not.

    Shapes: crop (H, W, C); offsets (C,); mean and out (C, H, W). The mean is read unmirrored.
    """
    for channel, plane in enumerate(_planes(crop)):
        target = out[channel, :, ::-1] if mirror else out[channel]
        target[...] = plane
        if offsets is not None and offsets[channel]:
            target -= offsets[channel]
        if mean is not None:
            target -= mean[channel]
        if scale != 1.0:
            target *= np.float32(scale)


def write_bytes(
    crop: Image,
    mirror: bool,
    offsets: Floats | None,
    mean: Floats | None,
    scale: float,
    out: npt.NDArray[Any],
) -> None:
    """Write the bytes of the pixels, mirrored or not, without the arithmetic.

    Shapes: crop (H, W, C); out (C, H, W), uint8.

    Raises:
        DataError: the pixels are not bytes.
    """
    if crop.dtype != np.uint8:
        raise DataError(
            f"an image of {crop.dtype}; expected bytes, as in the first record; make the database "
            "again with one kind of record"
        )
    for channel, plane in enumerate(_planes(crop)):
        target = out[channel, :, ::-1] if mirror else out[channel]
        target[...] = plane


def _planes(crop: Image) -> Any:
    """The channels of (H, W, C), each (H, W)."""
    if crop.strides[2] == crop.itemsize and crop.shape[2] > 1:
        # Interleaved: OpenCV separates the channels several times faster than strided reads.
        return cv2.split(crop)
    return (crop[:, :, channel] for channel in range(crop.shape[2]))
