"""Dense evaluation: the net over the whole image, its class score map averaged. Paper: 3.2."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.protocol import AFTER
from runtime.evaluate.score_net import Floats, ScoreNet, softmax

Progress = Callable[[int, int], None]
Compute = Callable[[Floats], npt.NDArray[np.float64]]
_PENDING_BYTES = 256 << 20
"""Images that wait for others of their shape take no more than this."""


class ShapeBatches:
    """Gathers images of equal shape; what waits is bounded in memory, not in number of shapes."""

    def __init__(self, size_of: Callable[[int, int], int], limit: int = _PENDING_BYTES) -> None:
        self._size_of = size_of
        self._limit = limit
        self._waiting: dict[tuple[int, ...], list[tuple[int, Floats]]] = {}
        self._bytes = 0

    def add(self, index: int, image: Floats) -> Iterator[tuple[list[int], Floats]]:
        """Take an image in; gives the batches that are full, or must go to make room."""
        self._waiting.setdefault(image.shape, []).append((index, image))
        self._bytes += image.nbytes
        if len(self._waiting[image.shape]) >= self._size_of(*image.shape[1:]):
            yield self._pop(image.shape)
        while self._bytes > self._limit:
            yield self._pop(max(self._waiting, key=lambda shape: len(self._waiting[shape])))

    def rest(self) -> Iterator[tuple[list[int], Floats]]:
        """Gives what waits still."""
        for shape in list(self._waiting):
            yield self._pop(shape)

    def _pop(self, shape: tuple[int, ...]) -> tuple[list[int], Floats]:
        taken = self._waiting.pop(shape)
        self._bytes -= sum(image.nbytes for _, image in taken)
        return [index for index, _ in taken], np.stack([image for _, image in taken])


def map_posteriors(maps: Floats, average: str) -> npt.NDArray[np.float64]:
    """Posteriors of class score maps: soft-max of the mean, or mean of the soft-max.

    Shapes: maps (N,C,h,w); result (N,C).
    """
    if average == AFTER:
        return np.asarray(softmax(maps).mean(axis=(2, 3)))
    return softmax(maps.mean(axis=(2, 3), dtype=np.float64))


def image_posteriors(
    net: ScoreNet, images: Floats, average: str, flip: bool
) -> npt.NDArray[np.float64]:
    """Posteriors of whole images, averaged with those of the flipped images. Shape (N,C)."""
    return flip_average(lambda x: map_posteriors(net.score_maps(x), average), images, flip)


def flip_average(compute: Compute, images: Floats, flip: bool) -> npt.NDArray[np.float64]:
    """A row for each image, averaged with that of the flipped image where `flip` is set."""
    found = compute(images)
    if not flip:
        return found
    flipped = np.ascontiguousarray(images[:, :, :, ::-1])
    return (found + compute(flipped)) / 2


def dense_posteriors(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    average: str,
    flip: bool = True,
    progress: Progress | None = None,
) -> Posteriors:
    """Posteriors of all images at one test scale. See `dense_rows`."""
    rows = dense_rows(
        net, images, scale, lambda batch: image_posteriors(net, batch, average, flip), progress
    )
    return Posteriors(*rows)


def dense_rows(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    compute: Compute,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """What `compute` makes of all images at one test scale, and their labels.

    Shapes: compute takes (n,3,H,W) and gives (n,C), C the net's classes; result (N,C), (N,).

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    values = np.zeros((images.count, net.classes))
    labels = np.zeros(images.count, np.int64)
    batches = ShapeBatches(net.batch_for)
    done = 0

    def run(indices: list[int], batch: Floats) -> int:
        values[indices] = compute(batch)
        if progress is not None:
            progress(done + len(indices), images.count)
        return len(indices)

    for index, image, label in images.stream(scale):
        labels[index] = label
        for full in batches.add(index, image):
            done += run(*full)
    for left in batches.rest():
        done += run(*left)
    return values, labels
