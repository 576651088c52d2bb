"""Classifier: class probabilities of images. Caffe: classifier.py."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from runtime.backend.base import HostArray
from runtime.pycaffe.errors import ArrayError, CallError
from runtime.pycaffe.files import PathLike
from runtime.pycaffe.image import Image, resize_image
from runtime.pycaffe.image import oversample as ten_crops
from runtime.pycaffe.net import Net
from runtime.pycaffe.transformer import Transformer
from runtime.weights.net_weights import CopyReport

log = logging.getLogger("verydeep.pycaffe")


class ImageNet(Net):
    """A net whose first input is an image, with the transformer that prepares images for it.

    A warning is logged if layers have no weights in the file: they keep their fillers' values.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike | None,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        """Make the net in phase TEST and its transformer; see Net and Transformer.

        Raises:
            CallError: the net has no input, or one that is no image; also a RuntimeError.
            MissingFileError, ArgumentError, VerydeepError: see Net.
        """
        super().__init__(model_file, proto.TEST, weights=pretrained_file)
        self.prepare(mean, input_scale, raw_scale, channel_swap)
        if pretrained_file is None and self.core.params.learnable:
            log.warning(
                "%s: no weights were given for net '%s'; its predictions are those of the fillers; "
                "give the weights file as the second argument",
                type(self).__name__,
                self.core.name,
            )

    def copy_from(self, weights: PathLike) -> CopyReport:
        """See Net.copy_from; also warns about layers without weights in the file."""
        report = super().copy_from(weights)
        if report.missing:
            log.warning(
                "%s: %s has no weights for %d of the layers of net '%s' (%s); they keep their "
                "fillers' values, so that predictions mean nothing; use the net that the file was "
                "written for",
                type(self).__name__,
                weights,
                len(report.missing),
                self.core.name,
                ", ".join(report.missing),
            )
        return report

    def prepare(
        self,
        mean: npt.ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        """Replace the transformer; see Transformer for the arguments.

        Raises:
            CallError: the net has no input, or one that is no image; also a RuntimeError.
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
        """The first output for each image, after the transformer.

        Shapes: images (H,W,C) each; result (images, ...).

        Raises:
            ArrayError: no images; also a ValueError.
        """
        if not len(images):
            raise ArrayError("predict: no images; expected at least one")
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, image) for image in images])
        inputs: dict[str, Any] = {name: prepared}
        return self.forward_all(**inputs)[self.outputs[0]]


class Classifier(ImageNet):
    """Classifies images: resizes and crops them, and averages the probabilities of the crops.

    Shapes: images (H,W,C) RGB, as of `io.load_image`.

    Units: pixels in [0, 1].
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
        """Load the net; images are resized to `image_dims` (height, width) before they are cropped.

        Raises:
            CallError: the net has no input, or one that is no image; also a RuntimeError.
        """
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.image_dims = self.crop_dims if image_dims is None else tuple(image_dims)

    @property
    def crop_dims(self) -> tuple[int, ...]:
        """Height and width of the net's input."""
        return self.blobs[self.inputs[0]].shape[2:]

    def predict(self, inputs: Sequence[Image], oversample: bool = True) -> HostArray:
        """Class probabilities: the means over ten crops, or without `oversample` of the centre.

        Shapes: inputs (H,W,C) each; result (images,classes).

        Raises:
            ArrayError: no images, or `image_dims` below the net's input; also a ValueError.
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
