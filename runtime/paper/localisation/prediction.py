"""Predicts the boxes of a set of images: from a central crop, or from many windows. Paper: A.1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners, Placement
from data_prep.progress import Progress
from prototxt_gen.errors import ShapeError
from runtime.evaluate.dense import run_batches
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.multicrop import grid_crops, grid_places, run_groups
from runtime.evaluate.score_net import Floats, ScoreNet, softmax
from runtime.paper.localisation.box_net import BoxNet
from runtime.paper.localisation.merging import MERGE_DISTANCE, Scores, merge

Labels = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.float64]
Candidates = list[tuple[Corners, Scores]]
"""For every image: boxes of k classes (k,n,4), in pixels of the file, and their scores (k,n)."""


def central_boxes(
    net: BoxNet,
    images: TestImages,
    scale: int,
    labels: Labels,
    sizes: Sizes,
    progress: Progress | None = None,
) -> Corners:
    """Predict the box of each image's true class from its central crop.

    Shapes: labels (N,), sizes (N,2) as (H,W) of the files; result (N,4).
    Units: pixels of the files.

    Raises:
        ShapeError: the scale is below the net's crop.
    """
    result = np.zeros((images.count, 4))

    def run(indices: list[int], group: list[Floats]) -> None:
        crops = np.concatenate([grid_crops(image, net.crop, 1, flip=False) for image in group])
        for index, image, boxes in zip(indices, group, net.boxes(crops)[:, :, 0]):
            top, left = (grid_places(n, c, 1)[0] for n, c in zip(image.shape[1:], net.crop))
            placement = placement_of(image, sizes[index], left, top)
            result[index] = placement.to_image(boxes[net.box_index(int(labels[index]))])

    run_groups(net, images, scale, 1, run, progress)
    return result


def dense_candidates(
    net: BoxNet,
    rating: ScoreNet,
    images: TestImages,
    scale: int,
    classes: Labels,
    sizes: Sizes,
    progress: Progress | None = None,
) -> Candidates:
    """Predict boxes of some classes from all windows of whole images, with the windows' scores.

    Shapes: classes (N,k), sizes (N,2) as (H,W) of the files.

    Raises:
        ShapeError: the scale is below the net's crop, or the nets have different windows.
    """
    result: Candidates = [(np.empty(0), np.empty(0))] * images.count

    def run(indices: list[int], batch: Floats) -> None:
        boxes, scores = net.boxes(batch), window_scores(rating, batch)
        if boxes.shape[2] != scores.shape[2]:
            raise ShapeError(
                f"{net.name}: {boxes.shape[2]} windows, but {scores.shape[2]} of the net "
                f"{rating.name} that rates them; expected nets with the same crop; use the "
                "classification net that the weights were started from"
            )
        for row, index in enumerate(indices):
            chosen = classes[index]
            own = boxes[row][[net.box_index(int(label)) for label in chosen]]
            placement = placement_of(batch[row], sizes[index])
            result[index] = placement.to_image(own), scores[row][chosen]

    run_batches(net, images, scale, run, progress)
    return result


def crop_candidates(
    net: BoxNet,
    rating: ScoreNet,
    images: TestImages,
    scale: int,
    grid: int,
    classes: Labels,
    sizes: Sizes,
    progress: Progress | None = None,
) -> Candidates:
    """Predict boxes of some classes from a grid of crops, each padded with zeros as in training.

    Both nets take crops.

    Shapes: classes (N,k), sizes (N,2) as (H,W) of the files.

    Raises:
        ShapeError: the scale is below the net's crop.
    """
    result: Candidates = [(np.empty(0), np.empty(0))] * images.count

    def run(indices: list[int], group: list[Floats]) -> None:
        crops = np.concatenate([grid_crops(image, net.crop, grid, flip=False) for image in group])
        boxes, scores = net.boxes(crops)[:, :, 0], window_scores(rating, crops)[:, :, 0]
        for place, (index, image) in enumerate(zip(indices, group)):
            own, chosen = slice(place * grid**2, (place + 1) * grid**2), classes[index]
            class_boxes = boxes[own][:, [net.box_index(int(label)) for label in chosen]]
            corners = _grid_corners(image, net.crop, grid)[:, None]
            moved = placement_of(image, sizes[index]).to_image(class_boxes + corners)
            result[index] = moved.transpose(1, 0, 2), scores[own][:, chosen].T

    run_groups(net, images, scale, grid**2, run, progress)
    return result


def merged_boxes(members: Sequence[Candidates], max_distance: float = MERGE_DISTANCE) -> Corners:
    """Merge the boxes of all members; return the best box of every image and class.

    Shapes: result (N,k,4). Units: pixels of the files.
    """
    result = []
    for parts in zip(*members, strict=True):
        boxes = np.concatenate([boxes for boxes, _ in parts], axis=1)
        scores = np.concatenate([scores for _, scores in parts], axis=1)
        result.append([merge(own, rated, max_distance)[0][0] for own, rated in zip(boxes, scores)])
    return np.array(result)


def window_scores(rating: ScoreNet, images: Floats) -> npt.NDArray[np.float64]:
    """Return class posteriors of every window, row by row.

    Shapes: images (N,3,H,W); result (N,C,windows).
    """
    maps = softmax(rating.score_maps(images))
    return maps.reshape(*maps.shape[:2], -1)


def placement_of(image: Floats, size: Sizes, left: int = 0, top: int = 0) -> Placement:
    """Return how a file was rescaled to an image, and where a crop of the image begins.

    Shapes: image (C,H,W), size (2,) as (H,W) of the file. Units: `left`, `top` in pixels.
    """
    height, width = image.shape[-2:]
    return Placement(width / size[1], height / size[0], left, top, width)


def _grid_corners(image: Floats, crop: tuple[int, int], grid: int) -> Corners:
    """Return the upper left corners of a grid of crops as (x, y, x, y). Shapes: (crops,4)."""
    rows, columns = (grid_places(n, c, grid) for n, c in zip(image.shape[1:], crop, strict=True))
    return np.array([(x, y, x, y) for y in rows for x in columns], np.float64)
