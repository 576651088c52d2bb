"""The score of a class and its gradients, and maps that are computed from them.

Scores are those before the softmax, averaged over the positions of a dense net. Papers: Simonyan,
Vedaldi and Zisserman, "Deep Inside Convolutional Networks"; Selvaraju et al., "Grad-CAM"; Zeiler
and Fergus, "Visualizing and Understanding Convolutional Networks" (occlusion).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np

from prototxt_gen.errors import ProtoError, ShapeError, UsageError
from runtime.backend.base import HostArray
from runtime.evaluate.surgery import scores_blob
from runtime.inference.model import Model

_SEED = 0
_NOISE = 0.1
"""The standard deviation of the noise, as a part of a step."""
_STRENGTH = 1e-4
"""The weight of the squared image in class_image, per pixel of a unit of 1 grey level."""


class ClassScore:
    """The class scores of a model that was loaded with `gradients=True`.

    Raises:
        ProtoError: the net has no softmax, or several inputs.
        ShapeError: its input is no image.
    """

    def __init__(self, model: Model) -> None:
        if len(model.inputs) != 1 or model.blobs[model.inputs[0]].num_axes != 4:
            raise ShapeError(
                f"net '{model.name}': expected one input of images (N,C,H,W), got "
                f"{[model.blobs[name].shape for name in model.inputs]}; give the deploy prototxt"
            )
        self.model = model
        self.input = model.inputs[0]
        self.scores = scores_blob(model.param)
        self.last = self._writer(self.scores)
        self.classes = model.blobs[self.scores].shape[1]

    def best(self, image: HostArray) -> int:
        """The class of the largest score. Shapes: image (C,H,W)."""
        return int(self._scores(image[None])[0].argmax())

    def check_class(self, label: int) -> int:
        """The class, if the net has it.

        Raises:
            UsageError: it has not.
        """
        if not 0 <= label < self.classes:
            raise UsageError(
                f"--class {label}: expected 0 to {self.classes - 1}, the classes of net "
                f"'{self.model.name}'; correct it"
            )
        return label

    def gradient(self, image: HostArray, label: int) -> HostArray:
        """The gradient of a class's score with respect to the image. Shapes: (C,H,W) both."""
        with self._passed(image):
            self._backward(label, 0)
            gradient: HostArray = self.model.blobs[self.input].diff.host()[0].copy()
            return gradient

    def saliency(self, image: HostArray, label: int) -> HostArray:
        """The largest absolute gradient of each pixel's channels. Shapes: result (H,W)."""
        result: HostArray = np.abs(self.gradient(image, label)).max(axis=0)
        return result

    def grad_cam(self, image: HostArray, label: int, blob: str | None = None) -> HostArray:
        """The positive part of a blob's channels, weighted by their mean gradients.

        `blob` is by default the last one with more than one position before the scores.

        Shapes: result (h,w), those of the blob.

        Raises:
            ProtoError: the net has no such blob of maps.
        """
        name = self.map_blob() if blob is None else blob
        if name not in self.model.blobs or self.model.blobs[name].num_axes != 4:
            raise ProtoError(
                f"net '{self.model.name}': no blob '{name}' of maps (N,C,H,W); expected one such "
                f"as {self.map_blob()}; correct --layer"
            )
        writer = self._writer(name)
        if writer >= self.last:
            raise ProtoError(
                f"net '{self.model.name}': blob '{name}' does not come before the scores "
                f"'{self.scores}'; expected one that does, such as {self.map_blob()}"
            )
        with self._passed(image):
            self._backward(label, writer + 1)
            top = self.model.blobs[name]
            weights = top.diff.host()[0].mean(axis=(1, 2), keepdims=True)
            return np.asarray(np.maximum((weights * top.data.host()[0]).sum(axis=0), 0))

    def map_blob(self) -> str:
        """The last blob before the scores whose maps have more than one position.

        Raises:
            ProtoError: there is none.
        """
        for index in range(self.last - 1, 0, -1):
            for name in self.model.layers[index].param.top:
                shape = self.model.blobs[name].shape
                if len(shape) == 4 and min(shape[2:]) > 1 and name != self.input:
                    return str(name)
        raise ProtoError(
            f"net '{self.model.name}': no blob of maps before '{self.scores}'; expected a "
            "convolution; choose a net that has one"
        )

    def occlusion(self, image: HostArray, label: int, window: int, stride: int) -> HostArray:
        """How much the score falls if a square around a position is replaced by the mean, 0.

        Squares at the border are cut. Pixels have the mean over the squares that contain them.

        Shapes: result (H,W).

        Raises:
            UsageError: the window or the stride is below 1, or the window above the image.
        """
        height, width = image.shape[1:]
        if not (1 <= window <= min(height, width) and 1 <= stride <= window):
            raise UsageError(
                f"--window {window}, --stride {stride}: expected a window of 1 to "
                f"{min(height, width)} pixels, and a stride of 1 to the window; correct them"
            )
        corners = [
            (top, left)
            for top in range(stride - window, height, stride)
            for left in range(stride - window, width, stride)
        ]
        whole = float(self._scores(image[None])[0, label])
        total, count = np.zeros((2, height, width))
        size = max(1, self.model.blobs[self.input].shape[0])
        for first in range(0, len(corners), size):
            part = corners[first : first + size]
            hidden = np.repeat(image[None], len(part), axis=0)
            squares = [_square(corner, window) for corner in part]
            for array, square in zip(hidden, squares):
                array[(slice(None), *square)] = 0
            for square, score in zip(squares, self._scores(hidden)[:, label]):
                total[square] += whole - score
                count[square] += 1
        return np.asarray(total / np.maximum(count, 1), np.float32)

    def class_image(self, label: int, iterations: int, rate: float) -> HostArray:
        """An image of a high score: gradient ascent from faint noise, with a penalty on its square.

        The steps are divided by the mean size of the gradient. At 0 itself, ReLUs without a bias
        have no gradient.

        Units: `rate` and the image in units of the net's input.

        Shapes: (C,H,W).
        """
        rng = np.random.default_rng(_SEED)
        shape = self.model.blobs[self.input].shape[1:]
        image = np.float32(_NOISE * rate) * rng.standard_normal(shape, np.float32)
        for _ in range(iterations):
            gradient = self.gradient(image, label)
            step = gradient / max(float(np.abs(gradient).mean()), 1e-30)
            image += np.float32(rate) * (step - np.float32(_STRENGTH) * image)
        return image

    def _scores(self, images: HostArray) -> HostArray:
        scores = self.model.predict(images, [self.scores])[self.scores]
        return np.asarray(scores.reshape(len(images), self.classes, -1).mean(axis=2))

    def _writer(self, blob: str) -> int:
        """The last layer that writes a blob."""
        return max(
            index for index, layer in enumerate(self.model.layers) if blob in layer.param.top
        )

    @contextlib.contextmanager
    def _passed(self, image: HostArray) -> Iterator[None]:
        """The net with one image, after a forward pass."""
        blob = self.model.blobs[self.input]
        shape = blob.shape
        with self.model.exclusive():
            try:
                blob.reshape((1, *image.shape))
                self.model.reshape()
                blob.data.mutable_host()[...] = image
                self.model.forward()
                yield
            finally:
                blob.reshape(shape)
                self.model.reshape()

    def _backward(self, label: int, end: int) -> None:
        diff = self.model.blobs[self.scores].diff.mutable_host()
        diff[...] = 0
        positions = diff[0, label].size
        diff[0, label] = 1 / positions
        self.model.backward(self.last, end)


def _square(corner: tuple[int, int], window: int) -> tuple[slice, slice]:
    top, left = corner
    return (
        slice(max(0, top), max(0, top + window)),
        slice(max(0, left), max(0, left + window)),
    )
