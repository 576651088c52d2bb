"""Images with their true boxes and the predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.boxes import Corners
from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write
from runtime.paper.localisation.overlap import iou, is_right
from runtime.paper.localisation.truth import Truth

_TRUE, _RIGHT, _WRONG = "limegreen", "dodgerblue", "crimson"


def draw_boxes(
    truth: Truth, boxes: Corners, path: Path, title: str, shape: tuple[int, int] = (4, 8)
) -> Path:
    """Draw images in their order, at most a row of them wrong; the format follows the suffix.

    Shapes: boxes (N,4), in pixels of the files.

    Raises:
        DataError: an image cannot be read, or the picture not be written.
    """
    # The object interface, without pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = _choose([is_right(b, t) for b, t in zip(boxes, truth.boxes)], shape)
    rows, columns = shape
    figure = Figure(figsize=(1.3 * columns, 1.5 * rows + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    images = truth.images
    for axis, index in zip(axes, chosen):
        where = images.key(index)
        image = datums.image_of(datums.parse(images.get(index), where), where, datums.COLOR)
        axis.imshow(image[:, :, ::-1])  # BGR to RGB
        for true in truth.boxes[index]:
            _outline(axis, true, _TRUE, 2.5)
        right = is_right(boxes[index], truth.boxes[index])
        _outline(axis, boxes[index], _RIGHT if right else _WRONG, 1.5)
        best = float(iou(boxes[index], truth.boxes[index]).max())
        name = truth.names[truth.labels[index]].split(",")[0][:12]
        axis.set_title(f"{name} {best:.2f}", fontsize=8, color="black" if right else _WRONG)
    for axis in axes:
        axis.axis("off")
    legend = "true boxes green, predicted ones blue, or red where wrong; numbers: overlap (IoU)"
    figure.suptitle(f"{title}\n{legend}", size=9)
    with atomic_write(path, "wb", DataError) as stream:
        figure.savefig(stream, format=path.suffix.lstrip(".") or "png", dpi=90)
    return path


def _choose(right: Sequence[bool], shape: tuple[int, int]) -> list[int]:
    rows, columns = shape
    wrong = np.flatnonzero(~np.asarray(right))[:columns]
    hits = np.flatnonzero(np.asarray(right))[: rows * columns - len(wrong)]
    return [int(i) for i in (*wrong, *hits)]


def _outline(axis: object, box: Corners, colour: str, width: float) -> None:
    x0, y0, x1, y1 = box
    axis.plot(  # type: ignore[attr-defined]  # matplotlib is imported where it is used
        [x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=colour, linewidth=width
    )
