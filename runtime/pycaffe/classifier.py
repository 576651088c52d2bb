"""Classifier: a net that says what is in an image. Caffe: classifier.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from runtime.backend.base import HostArray
from runtime.pycaffe.errors import ArrayError, CallError
from runtime.pycaffe.image import Image, resize_image
from runtime.pycaffe.image import oversample as ten_crops
from runtime.pycaffe.net import Net
from runtime.pycaffe.net_arguments import PathLike
from runtime.pycaffe.transformer import Transformer


class ImageNet(Net):
    """A net of one input, with the transformer that prepares images for it."""

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike | None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        """Make the net in TEST and set up the transformer; see Transformer."""
        super().__init__(model_file, proto.TEST, weights=pretrained_file)
        self.prepare(mean, input_scale, raw_scale, channel_swap)

    def prepare(
        self,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        """Set up the transformer anew.

        Raises:
            CallError: the net has no input, or one that takes no images.
        """
        if not self.inputs or len(self.blobs[self.inputs[0]].shape) != 4:
            raise CallError(
                f"net '{self.core.name}': expected an input of 4 axes, as in a deploy prototxt, "
                f"got inputs {[(name, self.blobs[name].shape) for name in self.inputs]}"
            )
        name = self.inputs[0]
        self.transformer = Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def predict_prepared(self, images: Sequence[Image] | Image) -> HostArray:
        """The first output for each image, which the transformer prepares."""
        if not len(images):
            raise ArrayError("predict: no images; expected at least one")
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, image) for image in images])
        inputs: dict[str, Any] = {name: prepared}
        return self.forward_all(**inputs)[self.outputs[0]]


class Classifier(ImageNet):
    """Classifies images: crops them, prepares the crops, averages what the net says.

    Units: images (H,W,C) as `io.load_image` gives them.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike | None,
        image_dims: Sequence[int] | None = None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        """Load the net; `image_dims` (height, width) is the size that images are cropped from."""
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.image_dims = self.crop_dims if image_dims is None else tuple(image_dims)

    @property
    def crop_dims(self) -> tuple[int, ...]:
        """Height and width of the net's input."""
        return self.blobs[self.inputs[0]].shape[2:]

    def predict(self, inputs: Sequence[Image], oversample: bool = True) -> HostArray:
        """Class probabilities of images, which are first resized to `image_dims`.

        With `oversample` they are the means over ten crops, else those of the centre.

        Shapes: inputs (H,W,C) each; result (images,classes).
        """
        resized = [resize_image(image, self.image_dims) for image in inputs]
        if not oversample:
            return self.predict_prepared([self._centre(image) for image in resized])
        if not resized:
            raise ArrayError("predict: no images; expected at least one")
        scores = self.predict_prepared(ten_crops(resized, self.crop_dims))
        return np.asarray(scores.reshape(len(resized), 10, -1).mean(axis=1))

    def _centre(self, image: Image) -> Image:
        height, width = self.crop_dims
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        if min(top, left) < 0:
            raise ArrayError(
                f"predict: image_dims {self.image_dims} are smaller than the net's input "
                f"{self.crop_dims}; expected at least that"
            )
        return image[top : top + height, left : left + width]
