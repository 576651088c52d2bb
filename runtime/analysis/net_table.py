"""The layers of a built net as a short table, in text and in HTML."""

from __future__ import annotations

import html

from runtime.analysis.summary_text import align, shape_text
from runtime.net import Net
from runtime.net.building import PHASE_NAMES

_WIDTH = 100
_HEADERS = ["layer", "type", "bottoms", "tops", "weights"]


def net_text(net: Net) -> str:
    """The name and phase of a net, and one line for each layer with the shapes of its tops."""
    rows = [_HEADERS, *_rows(net)]
    return "\n".join([net_title(net), *align(rows, len(_HEADERS), _WIDTH)])


def net_html(net: Net) -> str:
    """The table of net_text as HTML, for notebooks."""
    head = "".join(f"<th>{name}</th>" for name in _HEADERS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _rows(net)
    )
    caption = f"<caption>{html.escape(net_title(net))}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def net_title(net: Net) -> str:
    """One line: the net's name, its phase, and its numbers of layers, blobs and parameters."""
    parameters = sum(blob.count() for blob in net.params.learnable)
    return (
        f"Net '{net.name}' ({PHASE_NAMES[net.phase]}): {len(net.layers)} layers, "
        f"{len(net.blobs)} blobs, {parameters:,} parameters"
    )


def _rows(net: Net) -> list[list[str]]:
    return [
        [
            str(layer.param.name),
            str(layer.param.type),
            ", ".join(layer.param.bottom),
            ", ".join(f"{name} {shape_text(net.blobs[name].shape)}" for name in layer.param.top),
            ", ".join(shape_text(blob.shape) for blob in layer.blobs),
        ]
        for layer in net.layers
    ]
