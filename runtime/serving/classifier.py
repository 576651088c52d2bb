"""A model that classifies the bytes of image files for several threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.image_file import read_header
from prototxt_gen.errors import DataError, ShapeError, VerydeepError
from runtime.backend.base import HostArray
from runtime.bundle.preprocessing import Preprocessing
from runtime.inference.images import prepare
from runtime.inference.model import Model
from runtime.serving.batcher import Batcher


class TooLargeError(VerydeepError):
    """A request with more bytes or pixels than the limit."""


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Units: `wait` in seconds.
    """

    most_bytes: int = 16 << 20
    most_pixels: int = 50_000_000
    most_waiting: int = 64
    """Requests in work or waiting; further ones are refused."""
    batch: int = 8
    wait: float = 0.002
    """How long a batch waits for further requests."""
    body_seconds: float = 30.0
    """The time in which the body of a request has to arrive."""


class ImageClassifier:
    """A model with labels, which classifies one image at a time in batches of concurrent calls.

    Raises:
        ShapeError: the net does not classify prepared images, or the labels are not its classes.
    """

    def __init__(
        self,
        model: Model,
        preparation: Preprocessing,
        labels: Sequence[str],
        limits: Limits,
    ) -> None:
        _check(model, preparation)
        self.model, self.preparation, self.limits = model, preparation, limits
        self.output = model.outputs[0]
        # One image of zeros: the first request finds a net that has already run.
        rows = self._predict(np.zeros((1, preparation.channels, *preparation.crop), np.float32))
        if labels and len(labels) != rows.shape[1]:
            raise ShapeError(
                f"net '{model.name}': {rows.shape[1]} classes and {len(labels)} labels; expected "
                "one label for each class; give the labels of this net"
            )
        self.labels = list(labels) or [str(index) for index in range(rows.shape[1])]
        self.batcher = Batcher(self._predict, limits.batch, limits.wait)

    def submit(self, data: bytes) -> Future[HostArray]:
        """Decode and prepare an image, and put it in the queue.

        Raises:
            TooLargeError: it has too many pixels.
            DataError: it cannot be decoded.
            ShapeError: it is too small.
        """
        if not data:
            raise DataError(
                "the request has no content; expected the bytes of an image; send the file as "
                "the body"
            )
        header = read_header(data, "image")
        if header.height * header.width > self.limits.most_pixels:
            raise TooLargeError(
                f"image: {header.height}x{header.width} pixels; expected at most "
                f"{self.limits.most_pixels} in all; make the image smaller"
            )
        return self.batcher.submit(prepare(data, self.preparation))

    def best(self, row: HostArray, count: int) -> list[dict[str, Any]]:
        """The `count` classes of the largest probabilities."""
        order = np.argsort(-row, kind="stable")[:count]
        return [
            {
                "class": int(index),
                "label": self.labels[index],
                "probability": float(row[index]),
            }
            for index in order
        ]

    def close(self) -> None:
        """Finish the requests in the queue, and close the net."""
        self.batcher.close()
        self.model.close()

    def _predict(self, arrays: HostArray) -> HostArray:
        """Scores of any map are averaged over the positions."""
        scores = self.model.predict(arrays, [self.output])[self.output]
        return np.asarray(scores.reshape(len(arrays), scores.shape[1], -1).mean(axis=2))


def _check(model: Model, preparation: Preprocessing) -> None:
    shape = model.blobs[model.inputs[0]].shape if len(model.inputs) == 1 else ()
    outputs = [model.blobs[name].shape for name in model.outputs]
    if (
        len(shape) != 4
        or shape[1] != preparation.channels
        or len(outputs) != 1
        or len(outputs[0]) not in (2, 4)
    ):
        raise ShapeError(
            f"net '{model.name}': inputs {[model.blobs[name].shape for name in model.inputs]} and "
            f"outputs {outputs}; expected one input of images (N,{preparation.channels},H,W) and "
            "one output of classes; give the deploy prototxt"
        )
