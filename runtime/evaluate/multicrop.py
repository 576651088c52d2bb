"""Multi-crop evaluation: a regular grid of crops, each flipped too. Paper: 3.2 and 4.3."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from runtime.evaluate.dense import Progress
from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.score_net import Floats, ScoreNet, softmax


def grid_places(length: int, crop: int, count: int) -> list[int]:
    """Where `count` crops of a side begin: evenly spread from border to border; one is the centre.

    The places mirror each other, so that a flipped image has the flipped crops; only a middle one
    may be half a pixel off.
    """
    spare = length - crop
    if count == 1:
        return [spare // 2]
    first = [index * spare // (count - 1) for index in range(count // 2)]
    middle = [spare // 2] if count % 2 else []
    return first + middle + [spare - place for place in reversed(first)]


def grid_crops(image: Floats, crop: tuple[int, int], grid: int, flip: bool) -> Floats:
    """All crops of an image, then their flips. Shapes: image (C,H,W); result (n,C,h,w)."""
    height, width = crop
    cut = [
        image[:, row : row + height, column : column + width]
        for row in grid_places(image.shape[1], height, grid)
        for column in grid_places(image.shape[2], width, grid)
    ]
    if flip:
        cut += [each[:, :, ::-1] for each in cut]
    return np.stack(cut)


def crop_posteriors(net: ScoreNet, crops: Floats) -> npt.NDArray[np.float64]:
    """Soft-max posteriors of crops, computed in batches that fit. Shape (n,C)."""
    batch = net.batch_for(*net.crop)
    parts = [net.score_maps(crops[at : at + batch]) for at in range(0, len(crops), batch)]
    return softmax(np.concatenate(parts)[:, :, 0, 0])


def multicrop_posteriors(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    grid: int,
    flip: bool = True,
    progress: Progress | None = None,
) -> Posteriors:
    """Posteriors of all images at one test scale, averaged over their crops.

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    values = np.zeros((images.count, net.classes))
    labels = np.zeros(images.count, np.int64)
    each = grid * grid * (2 if flip else 1)
    together = max(1, net.batch_for(*net.crop) // each)
    waiting: list[tuple[int, Floats]] = []

    def run() -> None:
        crops = np.concatenate([cut for _, cut in waiting])
        found = crop_posteriors(net, crops).reshape(len(waiting), each, -1).mean(axis=1)
        values[[index for index, _ in waiting]] = found
        if progress is not None:
            progress(waiting[-1][0] + 1, images.count)
        waiting.clear()

    for index, image, label in images.stream(scale):
        labels[index] = label
        net.require_crop(image.shape[1], image.shape[2])
        waiting.append((index, grid_crops(image, net.crop, grid, flip)))
        if len(waiting) == together:
            run()
    if waiting:
        run()
    return Posteriors(values, labels)
