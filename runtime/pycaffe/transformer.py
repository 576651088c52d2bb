"""Transformer: from an image as it is loaded to a net's input, and back. Caffe: io.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.backend.base import HostArray
from runtime.pycaffe.errors import ArrayError, CallError
from runtime.pycaffe.image import resize_image

Array = npt.NDArray[Any]


class Transformer:
    """What each input of a net wants done to an image.

    In this order: resize, transpose, swap channels, `raw_scale`, subtract `mean`, `input_scale`.
    For most nets images in [0, 1] RGB become 0..255 BGR less a mean: transpose (2, 0, 1), channel
    swap (2, 1, 0), raw_scale 255.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        """Take the shapes of the inputs: `{'data': net.blobs['data'].data.shape}`."""
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: npt.ArrayLike) -> HostArray:
        """Turn one image into what the input takes; the image itself is left alone.

        Shapes: data (H,W,C); result (C,h,w) float32 after the usual transpose.
        """
        height, width = self._shape(in_)[2:]
        image = np.array(data, np.float32)
        if image.shape[:2] != (height, width):
            image = resize_image(image, (height, width))
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image = image * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            image = image - self.mean[in_].astype(np.float32)
        if in_ in self.input_scale:
            image = image * np.float32(self.input_scale[in_])
        return image

    def deprocess(self, in_: str, data: npt.ArrayLike) -> HostArray:
        """Undo `preprocess`, all but the resizing."""
        self._shape(in_)
        image = np.array(data, np.float32).squeeze()
        if in_ in self.input_scale:
            image = image / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            image = image + self.mean[in_].astype(np.float32)
        if in_ in self.raw_scale:
            image = image / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of axes: (2, 0, 1) makes (H,W,C) into (C,H,W)."""
        axes = len(self._shape(in_)) - 1
        if sorted(order) != list(range(axes)):
            raise ArrayError(
                f"Transformer: transpose order {tuple(order)} for input '{in_}'; expected the "
                f"axes 0 to {axes - 1}, each once"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels, after the transpose: (2, 1, 0) makes RGB into BGR."""
        channels = self._shape(in_)[1]
        if sorted(order) != list(range(channels)):
            raise ArrayError(
                f"Transformer: channel swap {tuple(order)} for input '{in_}'; expected the "
                f"channels 0 to {channels - 1}, each once"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set what the image is multiplied by before the mean is taken off."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.ArrayLike) -> None:
        """Set the mean to subtract, in the scale and order that raw_scale and channel_swap give.

        Shapes: (C,), (h,w) or (C,h,w) of the input; another size is resized.
        """
        shape = self._shape(in_)[1:]
        given = np.asarray(mean)
        if given.ndim == 1:
            if len(given) != shape[0]:
                raise ArrayError(
                    f"Transformer: a mean of {len(given)} channels for input '{in_}'; expected "
                    f"{shape[0]}"
                )
            self.mean[in_] = given[:, None, None]
            return
        if given.ndim == 2:
            given = given[None]
        if given.ndim != 3 or given.shape[0] not in (1, shape[0]):
            raise ArrayError(
                f"Transformer: a mean of shape {given.shape} for input '{in_}'; expected "
                f"({shape[0]},), {shape[1:]} or {shape}; of a mean file with 4 axes take [0]"
            )
        if given.shape[1:] != shape[1:]:
            given = resize_image(given.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = given

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set what the image is multiplied by in the end."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise CallError(
                f"Transformer: {in_} is not one of the net inputs: {', '.join(self.inputs)}"
            )
        return self.inputs[in_]
