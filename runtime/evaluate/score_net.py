"""A net with its weights that maps images of any size to maps of class scores."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto
from prototxt_gen.errors import ShapeError
from prototxt_gen.proto import Message
from runtime.analysis.memory_estimate import memory_estimate
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.evaluate.surgery import ScoreParam, crop_form, dense_form
from runtime.net import Net
from runtime.net.fillers import without_fillers
from runtime.weights.net_weights import copy_trained_layers

Floats = npt.NDArray[np.float32]
Self = TypeVar("Self", bound="ScoreNet")
MAX_BATCH = 64
MEMORY = 1 << 30
"""The limit of a batch's activations. Units: bytes."""


class ScoreNet:
    """Computes scores before the softmax.

    `crop` is the (H, W) of training, `classes` the number of channels of the scores. With `top`,
    the net ends at that blob instead.

    Raises:
        SnapshotError, ShapeError: the weights do not fit the net.
    """

    def __init__(
        self,
        model: Message,
        weights: str | os.PathLike[str],
        backend: Backend,
        dense: bool,
        memory: int = MEMORY,
        top: str | None = None,
    ) -> None:
        form: ScoreParam = dense_form(model, backend, top) if dense else crop_form(model, top)
        self.name = str(model.name)
        self.crop = form.crop
        sharing = Sharing(keep=frozenset({form.scores}))
        param = without_fillers(form.param)
        self._net = Net(param, proto.TEST, backend, RunContext(sharing=sharing))
        self._scores = form.scores
        self._memory = memory
        self._batches: dict[tuple[int, int], int] = {}
        copy_trained_layers(self._net, weights, strict=True, names=form.names, ignore=form.left_out)
        self.classes = int(self._net.blobs[self._scores].shape[1])

    def score_maps(self, images: Floats) -> Floats:
        """Compute the class scores at every position.

        Shapes: images (N,3,H,W); result (N,C,h,w), 1x1 for images of the crop's size.
        """
        self._reshape(images.shape)
        self._net.blobs[self._net.inputs[0]].data.mutable_host()[...] = images
        self._net.forward()
        maps = self._net.blobs[self._scores].data.host()
        return maps.reshape(*maps.shape, *(1,) * (4 - maps.ndim)).copy()

    def batch_for(self, height: int, width: int) -> int:
        """Return how many images of a size fit into the memory limit. Units: pixels."""
        if (height, width) not in self._batches:
            self._reshape((1, 3, height, width))
            need = memory_estimate(self._net)
            per_image = max(1, need.inputs + need.activations + need.buffers)
            room = max(1, self._memory - need.workspace) // per_image
            self._batches[height, width] = int(max(1, min(MAX_BATCH, room)))
        return self._batches[height, width]

    def require_crop(self, height: int, width: int) -> None:
        """Check that an image is at least as large as the net's crop. Units: pixels.

        Raises:
            ShapeError: it is smaller.
        """
        if height < self.crop[0] or width < self.crop[1]:
            raise ShapeError(
                f"net '{self.name}': an image of {height}x{width}; expected at least the net's "
                f"crop of {self.crop[0]}x{self.crop[1]}; use larger --scales"
            )

    def _reshape(self, shape: tuple[int, ...]) -> None:
        self.require_crop(*shape[2:])
        blob = self._net.blobs[self._net.inputs[0]]
        if blob.shape != shape:
            blob.reshape(shape)
            self._net.reshape()

    def close(self) -> None:
        """Release the memory of the net."""
        self._net.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def softmax(scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return probabilities along axis 1, in double precision. Shapes: (N,C,...) to (N,C,...)."""
    values = np.asarray(scores, np.float64)
    e = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))
