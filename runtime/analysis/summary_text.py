"""A summary as text: a table of at most 100 columns, and its totals."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from runtime.analysis.memory_estimate import MemoryEstimate
from runtime.analysis.receptive_field import Field
from runtime.analysis.summary import LayerRow, Summary
from runtime.net.building import PHASE_NAMES

WIDTH = 100
MIB = 1 << 20
_GAP = "  "
_LEFT = 3
"""The number of columns of words, which are left-aligned; columns of numbers are right-aligned."""
_HEAD = 2
_SCALES = ((1, ""), (1000, "k"), (1_000_000, "M"))
_SIZES = ((1, "bytes"), (1 << 10, "KiB"), (MIB, "MiB"))

Table = list[list[str]]


def summary_text(summary: Summary) -> str:
    """The summary as text: the table, the totals and the memory."""
    head = (
        f"{summary.name or 'net without a name'}: {PHASE_NAMES[summary.phase]}, batch of "
        f"{summary.memory.batch}"
    )
    parts = [head, "", *layer_lines(summary), "", *total_lines(summary)]
    return "\n".join(parts)


def layer_lines(summary: Summary) -> list[str]:
    """A line for each layer, and one for each further top.

    The receptive field is printed as its size and its stride in pixels. The column `on a GPU` names
    the layers that compute on the host; it is omitted if there are none.
    """
    macs = _scale([row.multiply_adds for row in summary.rows], _SCALES)
    memory = _scale([row.memory for row in summary.rows], _SIZES)
    table = [
        ["layer", "type", "output", "parameters", "mult-adds", "memory", "field", "stride"],
        ["", "", "", "", macs[1], memory[1], "pixels", "pixels"],
    ]
    host_only = any(row.host_only for row in summary.rows)
    if host_only:
        table[0].append("on a GPU")
        table[1].append("")
    for row in summary.rows:
        cells = _cells(row, macs[0], memory[0])
        if host_only:
            cells = [
                [*line, "on host" if row.host_only and line is cells[0] else ""] for line in cells
            ]
        table += cells
    lines = align(table, _LEFT, WIDTH)
    return [*lines[:_HEAD], "-" * max(map(len, lines)), *lines[_HEAD:]]


def total_lines(summary: Summary) -> list[str]:
    """The totals of the table, and the memory of a run."""
    memory = summary.memory
    totals = [
        ["parameters", f"{summary.parameters:,}", _mib(memory.weights)],
        ["multiply-adds per image", f"{summary.multiply_adds:,}", _giga(summary.multiply_adds)],
        ["activations per image", "", _mib(summary.activations_per_image)],
    ]
    if shared := sum(row.shared_parameters for row in summary.rows):
        totals.insert(1, ["parameters used again", f"{shared:,}", ""])
    head = f"memory in MiB for a batch of {memory.batch}"
    return [*align(totals, 1, WIDTH), "", head, *align(_memory_table(memory), 1, WIDTH)]


def align(table: Table, left: int, width: int) -> list[str]:
    """Lines of a table: the first `left` columns are left-aligned, the others right-aligned.

    If a line would be wider than `width`, the first column is shortened.
    """
    widths = [max(map(len, column)) for column in zip(*table)]
    surplus = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if surplus > 0:
        widths[0] = max(8, widths[0] - surplus)
    lines = []
    for cells in table:
        cells = [_shortened(cells[0], widths[0]), *cells[1:]]
        padded = [
            cell.ljust(size) if i < left else cell.rjust(size)
            for i, (cell, size) in enumerate(zip(cells, widths))
        ]
        lines.append(_GAP.join(padded).rstrip())
    return lines


def shape_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if shape else "scalar"


def field_texts(field: Field | None) -> tuple[str, str]:
    """Size and stride of a receptive field."""
    if field is None:
        return "-", "-"
    return _side(field.size), "-" if field.stride is None else _side(field.stride)


def _cells(row: LayerRow, macs: int, memory: int) -> Table:
    tops = row.tops or (("", ()),)
    parameters = f"{row.parameters:,}" if row.parameters else "-"
    if row.shared_parameters and not row.parameters:
        parameters = "shared"
    first = [
        row.name,
        row.type,
        shape_text(tops[0][1]) if row.tops else "-",
        parameters,
        _scaled(row.multiply_adds, macs) if row.multiply_adds else "-",
        "in place" if row.in_place else (_scaled(row.memory, memory) if row.memory else "-"),
        *field_texts(row.field),
    ]
    empty = [""] * (len(first) - _LEFT)
    return [first, *([f"  {name}", "", shape_text(shape), *empty] for name, shape in tops[1:])]


def _memory_table(memory: MemoryEstimate) -> Table:
    rows = [
        ("  weights", memory.weights),
        ("  images and labels", memory.inputs),
        ("  activations", memory.activations),
        ("  masks and scales", memory.buffers),
        ("  workspace of the convolutions", memory.workspace),
        ("forward", memory.forward),
    ]
    if memory.weight_gradients:
        rows += [
            ("  gradients of the weights", memory.weight_gradients),
            ("  gradients of the activations", memory.activation_gradients),
            ("forward and backward", memory.backward),
            ("  history of the solver", memory.history),
            ("training", memory.total),
        ]
    return [[name, f"{size / MIB:,.1f}"] for name, size in rows]


def _scale(values: Sequence[int], units: tuple[tuple[int, str], ...]) -> tuple[int, str]:
    """The largest unit in which the largest value is at least 10."""
    largest = max(values, default=0)
    return next((unit for unit in reversed(units) if largest >= 10 * unit[0]), units[0])


def _scaled(value: int, unit: int) -> str:
    return f"{value:,}" if unit == 1 else f"{value / unit:,.2f}"


def _shortened(text: str, width: int) -> str:
    """The text without its middle, because long names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 2) // 2
    return f"{text[: width - 2 - tail]}..{text[-tail:]}"


def _side(pair: tuple[Fraction, Fraction]) -> str:
    """Height and width; one number if they are equal."""
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _mib(size: float) -> str:
    return f"{size / MIB:,.1f} MiB"


def _giga(count: int) -> str:
    return f"{count / 1e9:,.3f} G"
