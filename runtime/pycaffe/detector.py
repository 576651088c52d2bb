"""Detector: class probabilities of windows of images. Caffe: detector.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import UnsupportedError
from runtime.pycaffe.classifier import ImageNet
from runtime.pycaffe.errors import ArrayError
from runtime.pycaffe.files import PathLike
from runtime.pycaffe.image import Image, load_image, resize_image

Window = Sequence[float]
"""ymin, xmin, ymax, xmax in pixels."""


class Detector(ImageNet):
    """Crops windows of images, resizes them to the net's input and classifies them.

    With `context_pad`, a window is enlarged so that the resized crop has that many pixels of
    context on every side, as in R-CNN. Pixels outside of the image have the mean.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike | None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        """Load the net; see Classifier for the arguments.

        Units: `context_pad` in pixels of the net's input.

        Raises:
            ArrayError: `context_pad` is negative, or half of the input's width or more; also a
                ValueError.
            CallError: the net has no input, or one that is no image; also a RuntimeError.
        """
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context of windows, and the mean of pixels outside of images.

        Units: `context_pad` in pixels of the net's input.

        Raises:
            ArrayError: `context_pad` is negative, or half of the input's width or more; also a
                ValueError.
        """
        name = self.inputs[0]
        channels, height, width = self.blobs[name].shape[1:]
        self.crop_dims = (height, width, channels)
        self.context_pad = context_pad or 0
        if not 0 <= 2 * self.context_pad < width:
            raise ArrayError(
                f"Detector: context_pad {context_pad}; expected at least 0 and below half of the "
                f"input's width {width}"
            )
        self.crop_mean = np.zeros(self.crop_dims, np.float32)
        if name in self.transformer.mean:
            # In the form of an image before the transformer.
            zeros = np.zeros((channels, height, width), np.float32)
            mean = zeros + self.transformer.mean[name]
            if name in self.transformer.channel_swap:
                mean = mean[np.argsort(self.transformer.channel_swap[name])]
            self.crop_mean = mean.transpose(1, 2, 0) / self.transformer.raw_scale.get(name, 1.0)

    def detect_windows(
        self, images_windows: Iterable[tuple[PathLike, Sequence[Window]]]
    ) -> list[dict[str, Any]]:
        """Classify windows of image files; returns window, prediction and filename of each.

        Raises:
            ImageError: an image cannot be read; also an OSError.
            ArrayError: a window is outside of its image; also a ValueError.
        """
        sources: list[tuple[PathLike, Window]] = []
        crops: list[Image] = []
        for filename, windows in images_windows:
            image = load_image(filename)
            for window in windows:
                crops.append(self.crop(image, window))
                sources.append((filename, window))
        predictions = self.predict_prepared(crops) if crops else ()
        return [
            {"window": window, "prediction": prediction, "filename": filename}
            for (filename, window), prediction in zip(sources, predictions)
        ]

    def detect_selective_search(self, image_fnames: Sequence[PathLike]) -> list[dict[str, Any]]:
        """Raise an error: the windows came from a MATLAB program, which is not available.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            "detect_selective_search: needs selective_search_ijcv_with_python and MATLAB; "
            "expected windows from a proposal method of your own; give them to detect_windows"
        )

    def crop(self, im: Image, window: Window) -> Image:
        """The crop of a window, with its context.

        Shapes: im (H,W,C); result the size of the window, or of the input with `context_pad`.

        Units: `window` in pixels.

        Raises:
            ArrayError: the window is outside of the image; also a ValueError.
        """
        rows, columns = im.shape[:2]
        ymin, xmin, ymax, xmax = (round(float(value)) for value in window)
        if not (ymin < min(ymax, rows) and xmin < min(xmax, columns) and min(ymax, xmax) > 0):
            raise ArrayError(
                f"Detector: window {tuple(window)} of an image of {rows}x{columns}; expected "
                "ymin, xmin, ymax, xmax of a part of it"
            )
        if not self.context_pad:
            return im[max(ymin, 0) : ymax, max(xmin, 0) : xmax]
        return self._with_context(im, (ymin, xmin, ymax, xmax))

    def _with_context(self, im: Image, window: tuple[int, int, int, int]) -> Image:
        side = self.crop_dims[1]
        grow = side / (side - 2.0 * self.context_pad)
        spans = []
        for low, high, limit, size in (
            (window[0], window[2], im.shape[0], self.crop_dims[0]),
            (window[1], window[3], im.shape[1], self.crop_dims[1]),
        ):
            spans.append(_span(low, high, limit, size, grow))
        (top, bottom, y, height), (left, right, x, width) = spans
        result = self.crop_mean.copy()
        inside = resize_image(im[top:bottom, left:right], (height, width))
        result[y : y + height, x : x + width] = inside
        return result


def _span(low: int, high: int, limit: int, size: int, grow: float) -> tuple[int, int, int, int]:
    """One axis of an enlarged window.

    Returns start and stop of its part inside the image, then start and length of that part in the
    input. `high` is the window's last pixel, as in R-CNN.
    """
    half = (high - low + 1) / 2.0
    centre = low + half
    start, stop = np.round(centre - grow * half), np.round(centre + grow * half)
    scale = size / (stop - start + 1)
    pad = round(max(0.0, -start) * scale)
    first, last = int(np.clip(start, 0, limit)), int(np.clip(stop, 0, limit))
    length = min(round((last - first + 1) * scale), size - pad)
    return first, last, pad, max(length, 1)
