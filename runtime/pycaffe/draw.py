"""Drawings of nets. Caffe: draw.py."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from prototxt_gen import draw as graphviz
from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import Message, copy_of
from prototxt_gen.upgrade import upgrade_net
from runtime.analysis.edge_channels import blob_channels
from runtime.analysis.net_plot import SUFFIXES, plot_net
from runtime.pycaffe.errors import MissingPackageError
from runtime.pycaffe.files import PathLike

log = logging.getLogger("verydeep.pycaffe")

__all__ = [
    "choose_color_by_layertype",
    "draw_net",
    "draw_net_to_file",
    "get_layer_label",
    "get_pooling_types_dict",
    "get_pydot_graph",
]


def get_pooling_types_dict() -> dict[int, str]:
    """The names of the pooling methods by their numbers: `{0: "MAX", ...}`."""
    methods = proto.PoolingParameter.DESCRIPTOR.enum_types_by_name["PoolMethod"].values
    return {method.number: method.name for method in methods}


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer type in drawings, such as "#FF5050" for Convolution."""
    return graphviz.layer_colour(proto.LayerParameter(type=layertype))


def get_layer_label(layer: Message, rankdir: str = "LR", display_lrm: bool = False) -> str:
    """The text in a layer's box: in one line in a tall drawing, else in several."""
    separator = " " if rankdir in ("TB", "BT") else "\n"
    return separator.join(graphviz.layer_lines(layer, display_lrm))


def get_pydot_graph(
    caffe_net: Message,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """A NetParameter as a `pydot.Dot` graph.

    Raises:
        MissingPackageError: pydot is not installed; also an ImportError.
        ProtoError: an unknown `rankdir`.
    """
    try:
        pydot = importlib.import_module("pydot")
    except ImportError as cause:
        raise MissingPackageError(
            f"get_pydot_graph: pydot cannot be imported ({cause}); expected the package pydot; "
            "install it with pip install pydot, or use draw_net, which does not need it"
        ) from cause
    net = _current_form(caffe_net)
    channels = blob_channels(net, phase)
    (graph,) = pydot.graph_from_dot_data(
        graphviz.net_to_dot(net, rankdir, phase, display_lrm, channels=channels)
    )
    for edge in () if label_edges else graph.get_edges():
        edge.get_attributes().pop("label", None)
    return graph


def draw_net(
    caffe_net: Message,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """A NetParameter as the bytes of an image.

    Without Graphviz, png, svg and pdf are drawn by matplotlib, with fewer details.

    Raises:
        UnsupportedError: an unknown format, or one that needs Graphviz where it is not installed.
        ProtoError: an unknown `rankdir`.
    """
    net = _current_form(caffe_net)
    suffix = f".{ext.lower()}"
    channels = blob_channels(net, phase)
    if suffix in SUFFIXES and rankdir in graphviz.RANKDIRS and not graphviz.has_graphviz():
        log.info("Graphviz is not installed: drawn by matplotlib")
        return plot_net(net, suffix, rankdir, phase, display_lrm, channels)
    return graphviz.draw_net(net, suffix, rankdir, phase, display_lrm, "draw_net", channels)


def draw_net_to_file(
    caffe_net: Message,
    filename: PathLike,
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the drawing of a NetParameter to a file, in the format of its ending.

    Raises:
        UnsupportedError, ProtoError: see draw_net.
        ProtoError: the file cannot be written.
    """
    ext = Path(filename).suffix[1:]
    image = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with atomic_write(filename, "wb", ProtoError) as stream:
        stream.write(image)


def _current_form(caffe_net: Message) -> Message:
    net = copy_of(caffe_net)
    upgrade_net(net, "draw_net")
    return net
