"""Images in pycaffe's form: (H,W,C) float32 in [0, 1], RGB. Caffe: io.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data_prep.datum import NATIVE, decode
from data_prep.image_file import read_image_file
from prototxt_gen.errors import DataError
from runtime.pycaffe.errors import ArrayError, ImageError
from runtime.pycaffe.files import PathLike

Image = npt.NDArray[np.float32]

# Of RGB, as in scikit-image, which pycaffe uses. Video has 0.299, 0.587, 0.114.
_LUMINANCE = (0.2125, 0.7154, 0.0721)


def load_image(filename: PathLike | BinaryIO, color: bool = True) -> Image:
    """Read an image from a file or from a binary file object.

    Gray images are converted to colour, or colour to gray without `color`; transparency is dropped.

    Shapes: (H,W,3) RGB, or (H,W,1) without `color`; float32 in [0, 1].

    Raises:
        ImageError: the image cannot be read or decoded; also an OSError.
    """
    try:
        return to_unit(read_pixels(filename), color)
    except DataError as cause:
        raise ImageError(str(cause)) from cause


def read_pixels(filename: PathLike | BinaryIO, mode: str = NATIVE) -> npt.NDArray[np.uint8]:
    """The pixels of an image; see `data_prep.datum.decode` for the mode.

    Shapes: (H,W,C), BGR for colour.

    Raises:
        DataError: the image cannot be read or decoded.
    """
    if not hasattr(filename, "read"):
        return decode(read_image_file(filename), str(filename), mode)
    subject = str(getattr(filename, "name", "image"))
    try:
        data = filename.read()
    except (OSError, ValueError) as cause:
        raise DataError(
            f"{subject}: cannot be read: {cause}; expected an open file of an image; open it in "
            'binary mode: open(path, "rb")'
        ) from cause
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise DataError(
            f"{subject}: the file gives {type(data).__name__}; expected bytes; open it in binary "
            'mode: open(path, "rb")'
        )
    return decode(bytes(data), subject, mode)


def to_unit(pixels: npt.NDArray[np.uint8], color: bool = True) -> Image:
    """Convert decoded pixels to the form of `load_image`.

    Shapes: pixels (H,W,C) uint8, BGR for colour; result (H,W,3) RGB, or (H,W,1) without `color`.
    """
    image: Image = pixels[:, :, ::-1].astype(np.float32) / np.float32(255)
    if color:
        return np.array(np.broadcast_to(image, (*image.shape[:2], 3)))
    if image.shape[2] == 1:
        return image
    return np.asarray(image @ np.array(_LUMINANCE, np.float32), np.float32)[:, :, None]


def resize_image(im: npt.NDArray[Any], new_dims: Sequence[int], interp_order: int = 1) -> Image:
    """Resize to `new_dims` (height, width) by splines of order `interp_order`.

    Images of 1 or 3 channels are resized by scikit-image, which smooths before it reduces; others
    by scipy, which does not. An image of the right size is copied.

    Shapes: im (H,W,C), result (height,width,C) float32.

    Raises:
        ArrayError: not three axes, or a size below 1x1; also a ValueError.
    """
    image = np.asarray(im)
    height, width = (int(size) for size in new_dims)
    if image.ndim != 3 or min(height, width) < 1 or 0 in image.shape:
        raise ArrayError(
            f"resize_image: an image of shape {image.shape} to {height}x{width}; expected "
            "(height,width,channels) and a size of at least 1x1"
        )
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    if image.shape[2] not in (1, 3):
        return _zoom(image, height, width, interp_order)
    from skimage.transform import resize

    low, high = float(image.min()), float(image.max())
    if high <= low:
        return np.full((height, width, image.shape[2]), low, np.float32)
    unit = (image - low) / (high - low)
    resized = resize(unit, (height, width), order=interp_order, mode="constant")
    return np.asarray(resized * (high - low) + low, np.float32)


def _zoom(image: npt.NDArray[Any], height: int, width: int, order: int) -> Image:
    # scikit-image depends on scipy.
    from scipy.ndimage import zoom

    factors = (height / image.shape[0], width / image.shape[1], 1)
    return np.asarray(zoom(image, factors, order=order), np.float32)


def oversample(images: Sequence[npt.NDArray[Any]], crop_dims: Sequence[int]) -> Image:
    """Ten crops of every image: the four corners (top left, top right, bottom left, bottom right),
    the centre, and their mirror images.

    Shapes: images (H,W,C) of one size; crop_dims (h,w); result (10 * images,h,w,C).

    Raises:
        ArrayError: no images, images that differ in size, or a crop larger than they are.
    """
    shapes = {np.shape(image) for image in images}
    height, width = (int(size) for size in crop_dims)
    if len(shapes) != 1 or len(min(shapes)) != 3:
        raise ArrayError(
            f"oversample: expected images of one size (height,width,channels), got shapes "
            f"{sorted(shapes)}; resize them first"
        )
    rows, columns, channels = min(shapes)
    if not (0 < height <= rows and 0 < width <= columns):
        raise ArrayError(
            f"oversample: crops of {height}x{width} from images of {rows}x{columns}; expected "
            "crops of at most the image; resize it first"
        )
    down, right = rows - height, columns - width
    corners = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    crops = np.empty((len(images), 10, height, width, channels), np.float32)
    for crop, image in zip(crops, images):
        for i, (y, x) in enumerate(corners):
            crop[i] = image[y : y + height, x : x + width]
        crop[5:] = crop[:5, :, ::-1]
    return crops.reshape(-1, height, width, channels)
