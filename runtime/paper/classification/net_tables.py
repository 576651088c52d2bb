"""Tables 1 and 2 of the paper, computed from the nets that this program builds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from prototxt_gen import heads, proto, vgg
from prototxt_gen.spec import builtin_spec
from prototxt_gen.vgg import Convolution
from runtime.analysis.summary import summarize
from runtime.analysis.summary_text import MIB, WIDTH, align
from runtime.backend.base import Backend
from runtime.net.shape_net import shape_net

TABLE_1 = ("A", "A-LRN", "B", "C", "D", "E")
"""The columns of Table 1; the paper describes the net of section 4.1 in words only."""

_ADDED = "*"


@dataclass(frozen=True)
class Size:
    """A net's row of Table 2, with its multiply-adds and its activations for one image.

    Units: `activations` in bytes.
    """

    parameters: int
    multiply_adds: int
    activations: int

    @property
    def millions(self) -> int:
        """The number of parameters in millions, as in Table 2."""
        return round(self.parameters / 1e6)


def sizes(backend: Backend) -> dict[str, Size]:
    """Return the size of every net of the paper."""
    table = {}
    for name in vgg.NETS:
        net = shape_net(heads.train_val(builtin_spec(name)), proto.TRAIN, backend, batch=1)
        summary = summarize(net)
        table[name] = Size(
            summary.parameters, summary.multiply_adds, int(summary.activations_per_image)
        )
    return table


def weight_layers(name: str) -> int:
    """Return the depth of a net as the paper counts it: the number of layers with weights."""
    units = itertools.chain.from_iterable(vgg.stages_of(name))
    return sum(isinstance(unit, Convolution) for unit in units) + len(vgg.FC_WIDTHS) + 1


def paper_text(backend: Backend) -> str:
    """Return both tables as text."""
    return "\n".join([*table_1_lines(), "", *table_2_lines(sizes(backend))])


def paper_dict(backend: Backend) -> dict[str, Any]:
    """Return both tables as a JSON object."""
    return {
        "table_1": {
            name: {
                "weight_layers": weight_layers(name),
                "stages": [list(stage) for stage in rows],
                "fc": [*vgg.FC_WIDTHS, vgg.CLASSES],
            }
            for name, rows in vgg.NETS.items()
        },
        "table_2": {
            name: {
                "parameters": size.parameters,
                "millions": size.millions,
                "multiply_adds_per_image": size.multiply_adds,
                "activation_bytes_per_image": size.activations,
            }
            for name, size in sizes(backend).items()
        },
    }


def table_1_lines() -> list[str]:
    """Return Table 1, one net per column; layers that the net on the left lacks are marked."""
    columns = [vgg.NETS[name] for name in TABLE_1]
    counts = [f"{weight_layers(name)} weight" for name in TABLE_1]
    table = [list(TABLE_1), counts, ["layers"] * len(TABLE_1)]
    widths = [max(map(len, (*counts, "conv3-512*"))) for _ in TABLE_1]
    line = "-" * (sum(widths) + 2 * len(widths) - 2)
    lines = ["Table 1: ConvNet configurations", "", *_columns(table, widths), line]
    lines += [_centred(f"input ({vgg.CROP} x {vgg.CROP} RGB image)", line), line]
    for stage in zip(*columns):
        cells = itertools.zip_longest(*stage, fillvalue="")
        lines += _columns([_marked(row) for row in cells], widths)
        lines += [line, _centred("maxpool", line), line]
    fc = [f"FC-{width}" for width in (*vgg.FC_WIDTHS, vgg.CLASSES)]
    lines += [_centred(text, line) for text in (*fc, "soft-max")]
    note = f"{_ADDED} a layer that the net on the left does not have (bold in the paper)"
    return [*lines, line, note]


def table_2_lines(measured: dict[str, Size]) -> list[str]:
    """Return Table 2: parameters in millions and exactly, multiply-adds and activations."""
    table = [["net", "millions", "parameters", "mult-adds (G)", "activations (MiB)"]]
    for name, size in measured.items():
        table.append(
            [
                name,
                f"{size.millions}",
                f"{size.parameters:,}",
                f"{size.multiply_adds / 1e9:.3f}",
                f"{size.activations / MIB:.1f}",
            ]
        )
    return [
        "Table 2: number of parameters; multiply-adds and activations are of one image, forward",
        "",
        *align(table, 1, WIDTH),
        "",
        "B-shallow is the net of section 4.1: B with each pair of 3x3 layers as one 5x5 layer.",
    ]


def _marked(row: tuple[str, ...]) -> list[str]:
    """Mark the cells of a row that differ from the cell on their left."""
    pairs = itertools.pairwise((row[0], *row))
    return [f"{cell}{_ADDED}" if cell and cell != left else cell for left, cell in pairs]


def _columns(table: list[list[str]], widths: list[int]) -> list[str]:
    return ["  ".join(map(str.center, row, widths)).rstrip() for row in table]


def _centred(text: str, line: str) -> str:
    return text.center(len(line)).rstrip()
