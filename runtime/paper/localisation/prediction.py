"""The boxes of a set of images by the paper's two ways: a central crop, and densely. Paper: A.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from data_prep.boxes import Corners, Placement
from prototxt_gen.errors import ShapeError
from runtime.evaluate.dense import ShapeBatches
from runtime.evaluate.image_source import TestImages
from runtime.evaluate.multicrop import grid_crops, grid_places
from runtime.evaluate.score_net import Floats, ScoreNet, softmax
from runtime.paper.localisation.box_net import BoxNet
from runtime.paper.localisation.merging import APART, Scores, merge

Labels = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Candidates = list[tuple[Corners, Scores]]
"""Of every image: the boxes of some classes in pixels of the file (k,n,4), their scores (k,n)."""


def central_boxes(
    net: BoxNet,
    images: TestImages,
    scale: int,
    labels: Labels,
    sizes: Sizes,
    progress: Progress | None = None,
) -> Corners:
    """The box of each image's own class from its central crop alone, in pixels of the file.

    Shapes: labels (N,), sizes (N,2) of the files; result (N,4).

    Raises:
        ShapeError: the scale is below the net's crop.
    """
    found = np.zeros((images.count, 4))
    batch = net.net.batch_for(*net.crop)
    waiting: list[tuple[int, Floats, Placement]] = []

    def run() -> None:
        boxes = net.boxes(np.concatenate([crop for _, crop, _ in waiting]))[:, :, 0]
        for (index, _, placed), own in zip(waiting, boxes):
            found[index] = placed.to_image(own[class_index(net, int(labels[index]))])
        if progress is not None:
            progress(waiting[-1][0] + 1, images.count)
        waiting.clear()

    for index, image, _ in images.stream(scale):
        net.net.require_crop(*image.shape[1:])
        top, left = (grid_places(n, c, 1)[0] for n, c in zip(image.shape[1:], net.crop))
        placed = place_of(image, sizes[index], left, top)
        waiting.append((index, grid_crops(image, net.crop, 1, flip=False), placed))
        if len(waiting) == batch:
            run()
    if waiting:
        run()
    return found


def dense_candidates(
    net: BoxNet,
    rating: ScoreNet,
    images: TestImages,
    scale: int,
    classes: Labels,
    sizes: Sizes,
    progress: Progress | None = None,
) -> Candidates:
    """The boxes of some classes from all windows of each image, with the windows' class scores.

    Shapes: classes (N,k).

    Raises:
        ShapeError: the scale is below the net's crop, or the nets have different windows.
    """
    found: Candidates = [(np.empty(0), np.empty(0))] * images.count
    batches, done = ShapeBatches(net.net.batch_for), 0

    def run(indices: list[int], batch: Floats) -> int:
        boxes, scores = net.boxes(batch), window_scores(rating, batch)
        if boxes.shape[2] != scores.shape[2]:
            raise ShapeError(
                f"{net.net.name}: {boxes.shape[2]} windows, but {scores.shape[2]} of the net "
                f"{rating.name} that rates them; expected nets of one crop; rate with the "
                "classification net that the weights were started from"
            )
        for row, index in enumerate(indices):
            wanted = classes[index]
            own = boxes[row][[class_index(net, int(each)) for each in wanted]]
            found[index] = place_of(batch[row], sizes[index]).to_image(own), scores[row][wanted]
        if progress is not None:
            progress(done + len(indices), images.count)
        return len(indices)

    for index, image, _ in images.stream(scale):
        for full in batches.add(index, image):
            done += run(*full)
    for left in batches.rest():
        done += run(*left)
    return found


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
    """The same from a grid of crops, each seen with nothing around it, as in training.

    Both nets are of crops.

    Raises:
        ShapeError: the scale is below the net's crop.
    """
    found: Candidates = []
    together = max(1, net.net.batch_for(*net.crop) // grid**2)
    waiting: list[tuple[int, Floats]] = []

    def run() -> None:
        crops = np.concatenate(
            [grid_crops(each, net.crop, grid, flip=False) for _, each in waiting]
        )
        boxes, scores = net.boxes(crops)[:, :, 0], window_scores(rating, crops)[:, :, 0]
        for place, (index, image) in enumerate(waiting):
            own, wanted = slice(place * grid**2, (place + 1) * grid**2), classes[index]
            chosen = boxes[own][:, [class_index(net, int(each)) for each in wanted]]
            placed = place_of(image, sizes[index])
            moved = placed.to_image(chosen + _grid_corners(image, net.crop, grid)[:, None])
            found.append((moved.transpose(1, 0, 2), scores[own][:, wanted].T))
        if progress is not None:
            progress(waiting[-1][0] + 1, images.count)
        waiting.clear()

    for index, image, _ in images.stream(scale):
        net.net.require_crop(*image.shape[1:])
        waiting.append((index, image))
        if len(waiting) == together:
            run()
    if waiting:
        run()
    return found


def _grid_corners(image: Floats, crop: tuple[int, int], grid: int) -> Corners:
    """Where the crops of a grid begin, twice beside itself. Shape (crops,4)."""
    rows, columns = (grid_places(n, c, grid) for n, c in zip(image.shape[1:], crop, strict=True))
    return np.array([(x, y, x, y) for y in rows for x in columns], np.float64)


def merged_boxes(members: Sequence[Candidates], most: float = APART) -> Corners:
    """For every image and class the best rated box of the union of all members' boxes.

    Shape (N,k,4).
    """
    found = []
    for parts in zip(*members, strict=True):
        boxes = np.concatenate([boxes for boxes, _ in parts], axis=1)
        scores = np.concatenate([scores for _, scores in parts], axis=1)
        found.append([merge(own, rated, most)[0][0] for own, rated in zip(boxes, scores)])
    return np.array(found)


def window_scores(rating: ScoreNet, images: Floats) -> npt.NDArray[np.float64]:
    """Class posteriors of every window, row by row. Shape (N,C,windows)."""
    maps = softmax(rating.score_maps(images))
    return maps.reshape(*maps.shape[:2], -1)


def class_index(net: BoxNet, label: int) -> int:
    """Which of a window's boxes is a class's."""
    return label if net.boxes_of_classes > 1 else 0


def place_of(image: Floats, size: Sizes, left: int = 0, top: int = 0) -> Placement:
    """How an image of a file of `size` (H,W) was rescaled, and cut."""
    height, width = image.shape[-2:]
    return Placement(width / size[1], height / size[0], left, top, width)
