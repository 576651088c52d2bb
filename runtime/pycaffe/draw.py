"""Drawings of nets. Caffe: draw.py."""

from __future__ import annotations

import logging
from pathlib import Path

from prototxt_gen import draw as graphviz
from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import Message
from prototxt_gen.upgrade import upgrade_net
from runtime.analysis.net_plot import SUFFIXES, plot_net
from runtime.pycaffe.net_arguments import PathLike

log = logging.getLogger("verydeep.pycaffe")

__all__ = ["draw_net", "draw_net_to_file"]


def draw_net(
    caffe_net: Message,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """A NetParameter as the bytes of an image; without Graphviz a plainer one, of png, svg or pdf.

    Raises:
        UnsupportedError: an unknown format, or one that needs Graphviz where there is none.
        ProtoError: an unknown `rankdir`.
    """
    net = type(caffe_net)()
    net.CopyFrom(caffe_net)
    upgrade_net(net, "draw_net")
    suffix = f".{ext.lower()}"
    if suffix in SUFFIXES and rankdir in graphviz.RANKDIRS and not graphviz.has_graphviz():
        log.info("Graphviz is not installed: drawn by matplotlib")
        return plot_net(net, suffix, rankdir, phase, display_lrm)
    return graphviz.draw_net(net, suffix, rankdir, phase, display_lrm, "draw_net")


def draw_net_to_file(
    caffe_net: Message,
    filename: PathLike,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw a NetParameter into a file of the format that its ending says. See draw_net."""
    ext = Path(filename).suffix[1:]
    image = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with atomic_write(filename, "wb", ProtoError) as stream:
        stream.write(image)
