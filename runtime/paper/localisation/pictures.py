"""Pictures of predicted boxes: a random sample of the images, and the worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep import datum as datums
from data_prep.boxes import Corners
from data_prep.sampler import permutation
from prototxt_gen.integers import ceil_div
from runtime.evaluate.figures import new_figure, plain_text, save_figure
from runtime.paper.localisation.merging import box_distance
from runtime.paper.localisation.overlap import Correct, iou, is_correct
from runtime.paper.localisation.truth import Truth

TRUE, CORRECT, WRONG = "limegreen", "dodgerblue", "crimson"
_COLUMNS = 8
_SAMPLE_ROWS, _WORST_ROWS = 3, 2
_NAME_LENGTH = 12
_LEGEND = (
    "true boxes green, predicted boxes blue if correct and red if wrong; number: overlap (IoU); "
    "'class': not guessed"
)


def draw_boxes(
    truth: Truth, boxes: Corners, correct: Correct, path: Path, title: str, seed: int = 0
) -> Path:
    """Draw a random sample of the images and, below it, the worst errors.

    The sample has the same proportion of errors as all images.

    Shapes: boxes (N,4), correct (N,). Units: boxes in pixels of the files.

    Raises:
        DataError: an image cannot be read, or the picture cannot be written.
    """
    sample = random_sample(correct, _SAMPLE_ROWS * _COLUMNS, seed)
    worst = worst_errors(truth, boxes, correct, _WORST_ROWS * _COLUMNS)
    rows = [ceil_div(len(part), _COLUMNS) for part in (sample, worst)]
    figure = new_figure(1.35 * _COLUMNS, 1.55 * sum(rows) + 1.4)
    shown = [count for count in rows if count]
    parts = figure.subfigures(len(shown), 1, height_ratios=shown, squeeze=False)[:, 0]
    wrong = int((~correct[sample]).sum())
    error = 100 * float((~correct).mean())
    head = (
        f"Random sample of {len(sample)} of {len(correct)} images (seed {seed}): {wrong} wrong, in "
        f"proportion to all images ({error:.1f} % wrong)"
    )
    _draw_part(parts[0], truth, boxes, correct, sample, head)
    if worst:
        head = f"The {len(worst)} worst errors (least overlap), not representative of all images"
        _draw_part(parts[1], truth, boxes, correct, worst, head)
    figure.suptitle(f"{title}\n{_LEGEND}", fontsize=10)
    return save_figure(figure, path, dpi=90)


def random_sample(correct: Correct, count: int, seed: int) -> list[int]:
    """Return a random sample of images with the same proportion of errors as all images.

    Shapes: correct (N,); result: at most `count` indices in random order.
    """
    count = min(count, len(correct))
    wrong, right = np.flatnonzero(~correct), np.flatnonzero(correct)
    errors = round(count * len(wrong) / len(correct))
    chosen = [*_drawn(wrong, errors, seed, 0), *_drawn(right, count - errors, seed, 1)]
    return [chosen[place] for place in permutation(len(chosen), seed, 2)]


def worst_errors(truth: Truth, boxes: Corners, correct: Correct, count: int) -> list[int]:
    """Return wrong images, those with the least overlap first.

    Without any overlap, the box with the larger distance comes first.
    """

    def order(index: int) -> tuple[float, float]:
        true = truth.boxes[index]
        overlap = float(iou(boxes[index], true).max())
        return overlap, -float(box_distance(boxes[index], true).min())

    return sorted((int(i) for i in np.flatnonzero(~correct)), key=order)[:count]


def _drawn(indices: npt.NDArray[np.intp], count: int, seed: int, stream: int) -> list[int]:
    return [int(indices[place]) for place in permutation(len(indices), seed, stream)[:count]]


def _draw_part(
    part: Any, truth: Truth, boxes: Corners, correct: Correct, chosen: Sequence[int], head: str
) -> None:
    part.suptitle(head, fontsize=9.5, fontweight="bold")
    axes = part.subplots(ceil_div(len(chosen), _COLUMNS), _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, index in zip(axes, chosen):
        _draw_image(axis, truth, boxes[index], bool(correct[index]), index)


def _draw_image(axis: Any, truth: Truth, box: Corners, correct: bool, index: int) -> None:
    images = truth.images
    key = images.key(index)
    image = datums.image_of(datums.parse(images.get(index), key), key, datums.COLOR)
    axis.imshow(image[:, :, ::-1])  # BGR to RGB
    for true in truth.boxes[index]:
        _outline(axis, true, TRUE, 2.5)
    _outline(axis, box, CORRECT if correct else WRONG, 1.5)
    # A correct box is an error if the class was not among the guesses.
    unguessed = not correct and is_correct(box, truth.boxes[index])
    overlap = "class" if unguessed else f"{float(iou(box, truth.boxes[index]).max()):.2f}"
    name = plain_text(truth.names[truth.labels[index]].split(",")[0][:_NAME_LENGTH])
    axis.set_title(f"{name} {overlap}", fontsize=8, color="black" if correct else WRONG)


def _outline(axis: Any, box: Corners, colour: str, width: float) -> None:
    x0, y0, x1, y1 = box
    axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=width)
