"""A net as an image without Graphviz: boxes in the order of the computation, by matplotlib."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

from prototxt_gen.draw import layer_colour, layer_label, layers_of_phase
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.proto import Message

SUFFIXES = (".png", ".svg", ".pdf")

# Inches between boxes along and across the flow, by whether it runs sideways.
_STEP = {True: (2.1, 1.5), False: (1.2, 2.6)}
_DPI = 100
# Agg draws at most 2^16 pixels a side.
_MOST_PIXELS = 60000


@dataclass
class _Box:
    layer: Message
    rank: int
    row: int = 0


def plot_net(
    net: Message,
    suffix: str,
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
) -> bytes:
    """The bytes of a .png, .svg or .pdf: a box a layer, an arrow for each blob that is read.

    Raises:
        UnsupportedError: another ending.
    """
    if suffix not in SUFFIXES:
        raise UnsupportedError(
            f"drawing: {suffix!r} without Graphviz; expected one of {' '.join(SUFFIXES)}; install "
            "graphviz for other formats"
        )
    from matplotlib.figure import Figure

    boxes, arrows = _arrange(layers_of_phase(net, phase))
    sideways = rankdir in ("LR", "RL")
    along, across = _STEP[sideways]
    ranks = 1 + max((box.rank for box in boxes), default=0)
    rows = 1 + max((box.row for box in boxes), default=0)
    size = (along * ranks, across * rows) if sideways else (across * rows, along * ranks)
    figure = Figure(figsize=size, dpi=min(_DPI, _MOST_PIXELS / max(size)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    centres = [_centre(box, rankdir, size) for box in boxes]
    texts = []
    for box, centre in zip(boxes, centres):
        label = layer_label(box.layer, "LR", lr_mults)
        style = {"boxstyle": "round", "facecolor": layer_colour(box.layer)}
        texts.append(axes.text(*centre, label, ha="center", va="center", fontsize=7, bbox=style))
    for source, target, blob in arrows:
        _draw_arrow(axes, texts[source], texts[target], blob)
    image = io.BytesIO()
    figure.savefig(image, format=suffix[1:], metadata=_undated(suffix))
    return image.getvalue()


def _arrange(layers: list[Message]) -> tuple[list[_Box], list[tuple[int, int, str]]]:
    """Give each layer a rank after those it reads from, and a row among its equals."""
    maker: dict[str, int] = {}
    boxes: list[_Box] = []
    arrows: list[tuple[int, int, str]] = []
    used: Counter[int] = Counter()
    for index, layer in enumerate(layers):
        sources = [(maker[name], name) for name in layer.bottom if name in maker]
        rank = 1 + max((boxes[source].rank for source, _ in sources), default=-1)
        boxes.append(_Box(layer, rank, used[rank]))
        used[rank] += 1
        arrows += [(source, index, name) for source, name in sources]
        maker.update(dict.fromkeys(layer.top, index))
    return boxes, arrows


def _centre(box: _Box, rankdir: str, size: tuple[float, float]) -> tuple[float, float]:
    along, across = _STEP[rankdir in ("LR", "RL")]
    far, side = along * (box.rank + 0.5), across * (box.row + 0.5)
    return {
        "LR": (far, size[1] - side),
        "RL": (size[0] - far, size[1] - side),
        "TB": (side, size[1] - far),
        "BT": (side, far),
    }[rankdir]


def _draw_arrow(axes: Any, source: Any, target: Any, blob: str) -> None:
    """Join the borders of two boxes, which are drawn first so that their borders are known."""
    begin, end = source.get_position(), target.get_position()
    style = {"arrowstyle": "->", "color": "#505050"}
    style |= {"patchA": source.get_bbox_patch(), "patchB": target.get_bbox_patch()}
    axes.annotate("", end, begin, arrowprops=style)
    middle = ((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2)
    axes.annotate(blob, middle, (0, 3), textcoords="offset points", ha="center", fontsize=5)


def _undated(suffix: str) -> dict[str, None]:
    """The same net gives the same bytes."""
    return {} if suffix == ".png" else {"Date" if suffix == ".svg" else "CreationDate": None}
