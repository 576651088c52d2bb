"""Draws a net with matplotlib, without Graphviz: boxes for layers, arrows for blobs."""

from __future__ import annotations

import functools
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prototxt_gen.draw import (
    Channels,
    channel_label,
    edge_label,
    in_phase,
    in_place,
    layer_colour,
    layer_lines,
    layers_of_phase,
    phase_mark,
)
from prototxt_gen.errors import UnsupportedError
from prototxt_gen.proto import TEST, TRAIN, Message
from runtime.analysis.layered_layout import (
    Flow,
    Layout,
    Node,
    bands_of,
    crossing_counts,
    lay_out,
    ranks_of,
)

SUFFIXES = (".png", ".svg", ".pdf")

_FONT = 7.0
_LABEL_FONT = 6.5
_LINE = 0.125
_PADDING = 0.08
_ASPECT = 1.5
"""Width divided by height of the page on which the bands of a long net are arranged."""
_ONE_BAND = {True: 14.0, False: 10.0}
"""Length in inches up to which a net is drawn in one band, by whether it is drawn sideways."""
_HEADER = 0.45
_DPI = 110
_MOST_PIXELS = 60000
"""Agg draws at most 2^16 pixels per side."""
_LINE_COLOUR = "#404040"
_SHORTEST = 1e-3
"""Parts of a line that are shorter, in inches, are rounding errors of the layout."""


@dataclass
class _Box:
    """A layer with its in-place layers, or a connector at which a line leaves or enters a band."""

    layers: list[Message] = field(default_factory=list)
    connector: str = ""
    phases: set[int] = field(default_factory=set)


@dataclass
class _Value:
    """A blob with the box that writes it and the boxes that read it."""

    source: int
    blob: str
    targets: list[int]
    label: list[str]


@dataclass
class _Drawing:
    boxes: list[_Box]
    values: list[_Value]
    rankdir: str
    lr_mults: bool
    marks: bool

    @property
    def sideways(self) -> bool:
        return self.rankdir in ("LR", "RL")

    def sections(self, box: _Box) -> list[list[str]]:
        """The lines of text in each part of a box."""
        if box.connector:
            return [[box.connector]]
        first, *others = box.layers
        parts = [_compact(layer_lines(first, self.lr_mults) + self._mark(first))]
        for layer in others:
            name, kind, *rest = layer_lines(layer, self.lr_mults) + self._mark(layer)
            parts.append([f"{name} {kind}", *rest])
        return parts

    def _mark(self, layer: Message) -> list[str]:
        return [mark] if self.marks and (mark := phase_mark(layer)) else []

    def box_size(self, box: _Box) -> tuple[float, float]:
        """Width and height in inches."""
        lines = self.sections(box)
        width = max(_text_width(line, _FONT, bold=True) for part in lines for line in part)
        height = sum(len(part) * _LINE + _PADDING for part in lines)
        return width + 2 * _PADDING, height

    def node(self, index: int) -> Node:
        width, height = self.box_size(self.boxes[index])
        labels = [value.label for value in self.values if value.source == index]
        if self.sideways:
            room = max((_label_width(label) for label in labels), default=0.0)
            return Node(width, max(height, 0.3 * len(labels)), room + 0.05 * bool(labels))
        spread = sum(_label_width(label) + 0.15 for label in labels) if len(labels) > 1 else 0.0
        room = _LINE * max((len(label) for label in labels), default=0)
        return Node(height, max(width, spread), room)


def plot_net(
    net: Message,
    suffix: str,
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
    channels: Channels | None = None,
) -> bytes:
    """The bytes of a .png, .svg or .pdf. A long net is drawn in several rows or columns.

    In-place layers are drawn in the box of the layer whose top they change. A blob that is read in
    another row has a box with its name at both ends.

    Args:
        net: of the current form.
        suffix: the format.
        rankdir: the direction of the flow, one of RANKDIRS.
        phase: draw the layers of this phase; None for all.
        lr_mults: whether the multipliers of learning rates are drawn.
        channels: the result of blob_channels for the phases that are drawn.

    Raises:
        UnsupportedError: another suffix.
    """
    if suffix not in SUFFIXES:
        raise UnsupportedError(
            f"drawing: {suffix!r} without Graphviz; expected one of {' '.join(SUFFIXES)}; install "
            "graphviz for other formats"
        )
    from matplotlib.figure import Figure

    drawing = _drawing(net, rankdir, phase, lr_mults, channels or {})
    layout = _lay_out(drawing)
    length, breadth = layout.size
    title = _title(net, phase)
    width, height = (length, breadth) if drawing.sideways else (breadth, length)
    width = max(width, 0.3 + max(_text_width(line, 9, bold=True) for line in title))
    size = (width, height + _HEADER)
    figure = Figure(figsize=size, dpi=min(_DPI, _MOST_PIXELS / max(size)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    for row, (line, weight) in enumerate(zip(title, ("bold", "normal"))):
        y = size[1] - 0.14 - 0.16 * row
        axes.text(
            0.15, y, line, fontsize=9 - 2 * row, fontweight=weight, va="center", parse_math=False
        )
    page = _Page(axes, rankdir, layout.size, height)
    _draw_lines(page, drawing, layout)
    for box, centre in zip(drawing.boxes, layout.centres):
        _draw_box(page, drawing, box, page.point(*centre))
    image = io.BytesIO()
    figure.savefig(image, format=suffix[1:], metadata=_undated(suffix))
    return image.getvalue()


def _title(net: Message, phase: int | None) -> list[str]:
    shown = {None: "layers of all phases", TRAIN: "TRAIN phase", TEST: "TEST phase"}[phase]
    return [f"{net.name or 'Net'}: {shown}", "Numbers on arrows are channels."]


def _drawing(
    net: Message,
    rankdir: str,
    phase: int | None,
    lr_mults: bool,
    channels: Channels,
) -> _Drawing:
    """The boxes and the values between them. Phases may have different producers of blobs."""
    phases = (TRAIN, TEST) if phase is None else (phase,)
    makers: dict[int, dict[str, int]] = {one_phase: {} for one_phase in phases}
    boxes: list[_Box] = []
    values: dict[tuple[int, str], _Value] = {}
    for layer in layers_of_phase(net, phase):
        mine = [one_phase for one_phase in phases if in_phase(layer, one_phase)]
        box = _box_to_join(layer, mine, makers, boxes, values)
        if box is None:
            box = len(boxes)
            boxes.append(_Box())
        for name in [] if boxes[box].layers else layer.bottom:
            for source in {
                makers[one_phase][name] for one_phase in mine if name in makers[one_phase]
            }:
                value = values.setdefault((source, name), _Value(source, name, [], []))
                value.targets += [box] if box not in value.targets else []
        boxes[box].layers.append(layer)
        boxes[box].phases.update(mine)
        for one_phase in mine:
            makers[one_phase].update(dict.fromkeys(layer.top, box))
    for value in values.values():
        value.label = _value_label(boxes[value.source], value.blob, channels)
    return _Drawing(boxes, list(values.values()), rankdir, lr_mults, phase is None)


def _box_to_join(
    layer: Message,
    phases: list[int],
    makers: Mapping[int, Mapping[str, int]],
    boxes: Sequence[_Box],
    values: Mapping[tuple[int, str], _Value],
) -> int | None:
    """The box of the blob that an in-place layer changes, unless the blob was read before."""
    if not in_place(layer):
        return None
    name = layer.top[0]
    sources = {makers[phase].get(name) for phase in phases}
    source = sources.pop() if len(sources) == 1 else None
    if source is None or (source, name) in values or not boxes[source].phases.issuperset(phases):
        return None
    return source


def _value_label(box: _Box, blob: str, channels: Channels) -> list[str]:
    """The blob's name, unless a layer of the box has it, and its channels."""
    names = [] if blob in {layer.name for layer in box.layers} else [blob]
    maker = next(layer for layer in box.layers if blob in layer.top)
    label = channel_label(maker, blob, channels)
    return names + ([label] if label else _static_label(maker))


def _static_label(layer: Message) -> list[str]:
    label = edge_label(layer)
    return [label] if label.isdigit() else []


def _lay_out(drawing: _Drawing) -> Layout:
    """Place the boxes; adds connectors to the drawing where bands divide a value."""
    flows = [Flow(value.source, tuple(value.targets)) for value in drawing.values]
    nodes = [drawing.node(index) for index in range(len(drawing.boxes))]
    ranks = ranks_of(len(nodes), flows)
    bands = _bands(drawing, nodes, ranks, flows)
    _divide(drawing, ranks, bands)
    flows = [Flow(value.source, tuple(value.targets)) for value in drawing.values]
    nodes = [drawing.node(index) for index in range(len(drawing.boxes))]
    return lay_out(nodes, ranks, bands, flows)


def _bands(
    drawing: _Drawing, nodes: Sequence[Node], ranks: Sequence[int], flows: Sequence[Flow]
) -> list[int]:
    lengths = [0.0] * (max(ranks, default=0) + 1)
    breadths = list(lengths)
    for node, rank in zip(nodes, ranks):
        lengths[rank] = max(lengths[rank], node.length)
        breadths[rank] += node.across
    total = sum(lengths)
    if total <= _ONE_BAND[drawing.sideways]:
        return [0] * len(nodes)
    aspect = _ASPECT if drawing.sideways else 1 / _ASPECT
    count = max(1, round(math.sqrt(total / (aspect * (max(breadths) + 0.35)))))
    of_rank = bands_of(lengths, crossing_counts(ranks, flows), count)
    return [of_rank[rank] for rank in ranks]


def _divide(drawing: _Drawing, ranks: list[int], bands: list[int]) -> None:
    """Divide the values that are read in another band."""

    def add(connector: str, rank: int, band: int) -> int:
        drawing.boxes.append(_Box(connector=connector))
        ranks.append(rank)
        bands.append(band)
        return len(ranks) - 1

    for value in list(drawing.values):
        home = bands[value.source]
        away = sorted({bands[target] for target in value.targets} - {home})
        if not away:
            continue
        for band in away:
            targets = [target for target in value.targets if bands[target] == band]
            rank = min(ranks[target] for target in targets) - 1
            box = add(f"→ {value.blob}", rank, band)
            label = value.label[-1:] if value.label[-1:] != [value.blob] else []
            drawing.values.append(_Value(box, value.blob, targets, label))
        value.targets = [target for target in value.targets if bands[target] == home]
        value.targets.append(add(f"{value.blob} →", ranks[value.source] + 1, home))


@dataclass
class _Page:
    """The axes, in inches, and the coordinates of a layout on them."""

    axes: Any
    rankdir: str
    size: tuple[float, float]
    height: float

    @property
    def sideways(self) -> bool:
        return self.rankdir in ("LR", "RL")

    def point(self, along: float, across: float) -> tuple[float, float]:
        if self.rankdir in ("RL", "BT"):
            along = self.size[0] - along
        if self.sideways:
            return along, self.height - across
        return across, self.height - along


def _draw_box(page: _Page, drawing: _Drawing, box: _Box, centre: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch, Rectangle

    width, height = drawing.box_size(box)
    left, upper = centre[0] - width / 2, centre[1] + height / 2
    if box.connector:
        shape = f"round,pad=0,rounding_size={height / 2}"
        corner = (left, upper - height)
        pill = FancyBboxPatch(corner, width, height, shape, fc="white", ec=_LINE_COLOUR, lw=0.6)
        page.axes.add_patch(pill)
    parts = list(enumerate(drawing.sections(box)))
    for index, lines in reversed(parts) if page.rankdir == "BT" else parts:
        part = len(lines) * _LINE + _PADDING
        if box.layers:
            layer = box.layers[index]
            dashed = "--" if drawing.marks and phase_mark(layer) else "-"
            patch = Rectangle((left, upper - part), width, part, fc=layer_colour(layer), lw=0.6)
            patch.set(edgecolor="black", linestyle=dashed)
            page.axes.add_patch(patch)
        for row, line in enumerate(lines):
            y = upper - _PADDING / 2 - (row + 0.5) * _LINE
            weight = "bold" if row == 0 and index == 0 and box.layers else "normal"
            page.axes.text(
                centre[0],
                y,
                line,
                ha="center",
                va="center_baseline",
                fontsize=_FONT,
                fontweight=weight,
                parse_math=False,
            )
        upper -= part


def _draw_lines(page: _Page, drawing: _Drawing, layout: Layout) -> None:
    starts = _starts(drawing, layout)
    for index, value in enumerate(drawing.values):
        border, across = starts[index]
        for target in value.targets:
            first, *points = layout.lines[index, target]
            end, side = layout.centres[target]
            width, height = drawing.box_size(drawing.boxes[target])
            end -= (width if drawing.sideways else height) / 2
            route = [(border, across), (first[0], across), *points, (end, side)]
            _draw_arrow(page, route)
        x, y = page.point(border, across)
        style: dict[str, Any] = {"fontsize": _LABEL_FONT, "color": "#202020", "parse_math": False}
        if drawing.sideways:
            style |= {"va": "bottom", "ha": "left" if page.rankdir == "LR" else "right"}
            x, y = x + (0.05 if page.rankdir == "LR" else -0.05), y + 0.02
        else:
            style |= {"ha": "left", "va": "top" if page.rankdir == "TB" else "bottom"}
            x, y = x + 0.05, y + (-0.03 if page.rankdir == "TB" else 0.03)
        page.axes.text(x, y, "\n".join(value.label), **style)


def _starts(drawing: _Drawing, layout: Layout) -> list[tuple[float, float]]:
    """The points at which lines leave their boxes, in the order of the targets."""
    leaving: dict[int, list[int]] = {}
    for index, value in enumerate(drawing.values):
        leaving.setdefault(value.source, []).append(index)
    starts = [(0.0, 0.0)] * len(drawing.values)
    for source, indices in leaving.items():
        width, height = drawing.box_size(drawing.boxes[source])
        along, across = layout.centres[source]
        border = along + (width if drawing.sideways else height) / 2
        indices.sort(key=lambda i: _mean([layout.centres[t][1] for t in drawing.values[i].targets]))
        step = height / len(indices)
        if not drawing.sideways:
            room = max(_label_width(drawing.values[i].label) for i in indices) + 0.15
            step = max(room, width / len(indices)) if len(indices) > 1 else 0.0
        for place, index in enumerate(indices):
            starts[index] = (border, across + step * (place - (len(indices) - 1) / 2))
    return starts


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


def _draw_arrow(page: _Page, route: Sequence[tuple[float, float]]) -> None:
    """Draw a line that is straight along boxes and curved between ranks."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    vertices, codes = [page.point(*route[0])], [Path.MOVETO]
    # Arrowheads have the direction of the last part, which must have a length above 0.
    route = [route[0], *(b for a, b in itertools.pairwise(route) if math.dist(a, b) > _SHORTEST)]
    for (along, across), (to_along, to_across) in itertools.pairwise(route):
        if abs(across - to_across) < _SHORTEST:
            vertices.append(page.point(to_along, to_across))
            codes.append(Path.LINETO)
            continue
        middle = (along + to_along) / 2
        for point in ((middle, across), (middle, to_across), (to_along, to_across)):
            vertices.append(page.point(*point))
            codes.append(Path.CURVE4)
    page.axes.add_patch(
        FancyArrowPatch(
            path=Path(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=6,
            color=_LINE_COLOUR,
            linewidth=0.7,
            capstyle="butt",
        )
    )


def _compact(lines: list[str]) -> list[str]:
    """The lines of a label, with stride and pad in one line."""
    stride = next((line for line in lines if line.startswith("stride: ")), None)
    pad = next((line for line in lines if line.startswith("pad: ")), None)
    if stride is None or pad is None:
        return lines
    return [f"{stride}, {pad}" if line == stride else line for line in lines if line != pad]


def _label_width(label: Sequence[str]) -> float:
    return max((_text_width(line, _LABEL_FONT) for line in label), default=0.0)


@functools.lru_cache(maxsize=4096)
def _text_width(text: str, size: float, bold: bool = False) -> float:
    """The width of a line of text in inches."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text or " ", font, ismath=False)
    return float(width) / 72


def _undated(suffix: str) -> dict[str, None]:
    """Metadata without a date, so that the same net gives the same bytes."""
    return {} if suffix == ".png" else {"Date" if suffix == ".svg" else "CreationDate": None}
