"""Dense evaluation: the net is applied to whole images, and its score map averaged. Paper: 3.2."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from data_prep.progress import Progress
from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.protocol import AFTER
from runtime.evaluate.score_net import Floats, ScoreNet, softmax

Compute = Callable[[Floats], npt.NDArray[np.float64]]
_PENDING_BYTES = 256 << 20
"""The limit of images that wait for others of the same shape."""


class ShapeBatches:
    """Collects images of equal shape into batches; the memory of incomplete batches is limited."""

    def __init__(self, size_of: Callable[[int, int], int], limit: int = _PENDING_BYTES) -> None:
        self._size_of = size_of
        self._limit = limit
        self._waiting: dict[tuple[int, ...], list[tuple[int, Floats]]] = {}
        self._bytes = 0

    def add(self, index: int, image: Floats) -> Iterator[tuple[list[int], Floats]]:
        """Add an image; yield complete batches, and incomplete ones above the memory limit."""
        self._waiting.setdefault(image.shape, []).append((index, image))
        self._bytes += image.nbytes
        if len(self._waiting[image.shape]) >= self._size_of(*image.shape[1:]):
            yield self._pop(image.shape)
        while self._bytes > self._limit:
            yield self._pop(max(self._waiting, key=lambda shape: len(self._waiting[shape])))

    def rest(self) -> Iterator[tuple[list[int], Floats]]:
        """Yield the incomplete batches."""
        for shape in list(self._waiting):
            yield self._pop(shape)

    def _pop(self, shape: tuple[int, ...]) -> tuple[list[int], Floats]:
        images = self._waiting.pop(shape)
        self._bytes -= sum(image.nbytes for _, image in images)
        return [index for index, _ in images], np.stack([image for _, image in images])


def map_posteriors(maps: Floats, average: str) -> npt.NDArray[np.float64]:
    """Return posteriors of class score maps: softmax of the mean, or mean of the softmax.

    Shapes: maps (N,C,h,w); result (N,C).
    """
    if average == AFTER:
        return np.asarray(softmax(maps).mean(axis=(2, 3)))
    return softmax(maps.mean(axis=(2, 3), dtype=np.float64))


def image_posteriors(
    net: ScoreNet, images: Floats, average: str, flip: bool
) -> npt.NDArray[np.float64]:
    """Return posteriors of whole images, averaged with those of the mirrored images if `flip`.

    Shapes: images (N,3,H,W); result (N,C).
    """
    return flip_average(lambda x: map_posteriors(net.score_maps(x), average), images, flip)


def flip_average(compute: Compute, images: Floats, flip: bool) -> npt.NDArray[np.float64]:
    """Compute a row for each image, averaged with that of the mirrored image if `flip`.

    Shapes: images (N,3,H,W); result (N,C).
    """
    rows = compute(images)
    if not flip:
        return rows
    mirrored = np.ascontiguousarray(images[:, :, :, ::-1])
    return (rows + compute(mirrored)) / 2


def dense_posteriors(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    average: str,
    flip: bool = True,
    progress: Progress | None = None,
) -> Posteriors:
    """Compute posteriors of all images at one test scale. See `dense_rows`."""
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
    """Compute a row for each image at one test scale; return the rows and the labels.

    Shapes: `compute` maps (n,3,H,W) to (n,C), C the net's classes; result (N,C), (N,).

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    values = np.zeros((images.count, net.classes))

    def run(indices: list[int], batch: Floats) -> None:
        values[indices] = compute(batch)

    labels = run_batches(net, images, scale, run, progress)
    return values, labels


def run_batches(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    run: Callable[[list[int], Floats], None],
    progress: Progress | None = None,
) -> npt.NDArray[np.int64]:
    """Call `run(indices, batch)` for all images, in batches of equal shape; return the labels.

    Shapes: batch (n,3,H,W); result (N,).

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    labels = np.zeros(images.count, np.int64)
    batches = ShapeBatches(net.batch_for)
    done = 0

    def run_all(complete: Iterator[tuple[list[int], Floats]]) -> int:
        count = 0
        for indices, batch in complete:
            run(indices, batch)
            count += len(indices)
            if progress is not None:
                progress(done + count, images.count)
        return count

    for index, image, label in images.stream(scale):
        labels[index] = label
        done += run_all(batches.add(index, image))
    run_all(batches.rest())
    return labels
