"""Transformer: converts images to a net's input and back. Caffe: io.py."""

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
    """The steps that convert an image to each input of a net.

    Their order: resize, transpose, swap channels, `raw_scale`, subtract `mean`, `input_scale`. Most
    nets need 0..255 BGR less a mean from images in [0, 1] RGB: transpose (2, 0, 1), channel swap
    (2, 1, 0), raw_scale 255.
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
        """Convert one image to an input; the array of the image is not changed.

        Shapes: data (H,W,C); result (C,h,w) float32 after the transpose (2, 0, 1).

        Raises:
            CallError: the net has no input of that name; also a RuntimeError.
            ArrayError: an image that cannot be resized; also a ValueError.
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
        """Undo the steps of `preprocess`, except the resizing.

        Shapes: data (C,h,w) or (1,C,h,w); result (h,w,C) float32 for the transpose (2, 0, 1).

        Raises:
            CallError: the net has no input of that name; also a RuntimeError.
        """
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
        """Set the order of axes: (2, 0, 1) converts (H,W,C) to (C,H,W).

        Raises:
            ArrayError: not a permutation of the axes; also a ValueError.
        """
        axes = len(self._shape(in_)) - 1
        if sorted(order) != list(range(axes)):
            raise ArrayError(
                f"Transformer: transpose order {tuple(order)} for input '{in_}'; expected the "
                f"axes 0 to {axes - 1}, each once"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of channels, after the transpose: (2, 1, 0) converts RGB to BGR.

        Raises:
            ArrayError: not a permutation of the channels; also a ValueError.
        """
        channels = self._shape(in_)[1]
        if sorted(order) != list(range(channels)):
            raise ArrayError(
                f"Transformer: channel swap {tuple(order)} for input '{in_}'; expected the "
                f"channels 0 to {channels - 1}, each once"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean is subtracted."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: npt.ArrayLike) -> None:
        """Set the mean to subtract, in the scale and channel order of the net's input.

        Shapes: (C,), (h,w) or (C,h,w); another height and width are resized to the input's.

        Raises:
            ArrayError: another number of channels or axes; also a ValueError.
        """
        shape = self._shape(in_)[1:]
        array = np.asarray(mean)
        if array.ndim == 1:
            if len(array) != shape[0]:
                raise ArrayError(
                    f"Transformer: a mean of {len(array)} channels for input '{in_}'; expected "
                    f"{shape[0]}"
                )
            self.mean[in_] = array[:, None, None]
            return
        if array.ndim == 2:
            array = array[None]
        if array.ndim != 3 or array.shape[0] not in (1, shape[0]):
            raise ArrayError(
                f"Transformer: a mean of shape {array.shape} for input '{in_}'; expected "
                f"({shape[0]},), {shape[1:]} or {shape}; of a mean file with 4 axes take [0]"
            )
        if array.shape[1:] != shape[1:]:
            array = resize_image(array.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = array

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor after the mean is subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise CallError(
                f"Transformer: {in_} is not one of the net inputs: {', '.join(self.inputs)}"
            )
        return self.inputs[in_]
