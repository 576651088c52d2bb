"""Multi-crop evaluation: a regular grid of crops, optionally with flips. Paper: 3.2 and 4.3."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data_prep.progress import Progress
from runtime.evaluate.fusion import Posteriors
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.score_net import Floats, ScoreNet, softmax


def grid_places(length: int, crop: int, count: int) -> list[int]:
    """Return the offsets of `count` crops, evenly spaced from border to border; 1 is the centre.

    The offsets are symmetric, so that a mirrored image has the mirrored crops; a middle crop may be
    half a pixel off.

    Units: pixels.
    """
    spare = length - crop
    if count == 1:
        return [spare // 2]
    first = [index * spare // (count - 1) for index in range(count // 2)]
    middle = [spare // 2] if count % 2 else []
    return first + middle + [spare - place for place in reversed(first)]


def grid_crops(image: Floats, crop: tuple[int, int], grid: int, flip: bool) -> Floats:
    """Return the crops of an image, then the mirrored crops if `flip`.

    Shapes: image (C,H,W), crop (h,w); result (n,C,h,w).
    """
    height, width = crop
    crops = [
        image[:, row : row + height, column : column + width]
        for row in grid_places(image.shape[1], height, grid)
        for column in grid_places(image.shape[2], width, grid)
    ]
    if flip:
        crops += [plain[:, :, ::-1] for plain in crops]
    return np.stack(crops)


def crop_posteriors(net: ScoreNet, crops: Floats) -> npt.NDArray[np.float64]:
    """Compute softmax posteriors of crops, in batches that fit into memory.

    Shapes: crops (n,3,h,w); result (n,C).
    """
    batch = net.batch_for(*net.crop)
    parts = [net.score_maps(crops[i : i + batch]) for i in range(0, len(crops), batch)]
    return softmax(np.concatenate(parts)[:, :, 0, 0])


def multicrop_posteriors(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    grid: int,
    flip: bool = True,
    progress: Progress | None = None,
) -> Posteriors:
    """Compute posteriors of all images at one test scale, averaged over their crops.

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    values = np.zeros((images.count, net.classes))
    per_image = grid * grid * (2 if flip else 1)

    def run(indices: list[int], group: list[Floats]) -> None:
        crops = np.concatenate([grid_crops(image, net.crop, grid, flip) for image in group])
        posteriors = crop_posteriors(net, crops).reshape(len(group), per_image, -1)
        values[indices] = posteriors.mean(axis=1)

    labels = run_groups(net, images, scale, per_image, run, progress)
    return Posteriors(values, labels)


def run_groups(
    net: ScoreNet,
    images: TestImages,
    scale: int,
    crops_per_image: int,
    run: Callable[[list[int], list[Floats]], None],
    progress: Progress | None = None,
) -> npt.NDArray[np.int64]:
    """Call `run(indices, images)` for groups whose crops fill a batch; return all labels.

    Shapes: each image (3,H,W), H and W at least the net's crop; result (N,).

    Raises:
        ShapeError: the scale is below the net's crop.
        DataError: a record cannot be used.
    """
    labels = np.zeros(images.count, np.int64)
    size = max(1, net.batch_for(*net.crop) // crops_per_image)
    indices: list[int] = []
    group: list[Floats] = []

    def run_group() -> None:
        run(list(indices), list(group))
        if progress is not None:
            progress(indices[-1] + 1, images.count)
        indices.clear()
        group.clear()

    for index, image, label in images.stream(scale):
        labels[index] = label
        net.require_crop(image.shape[1], image.shape[2])
        indices.append(index)
        group.append(image)
        if len(group) == size:
            run_group()
    if group:
        run_group()
    return labels
