"""A net as a Graphviz drawing: layers, blobs, and what flows between them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import Message

RANKDIRS = ("LR", "TB", "BT", "RL")
TEXT_FORMATS = (".dot", ".gv", ".raw")
IMAGE_FORMATS = (".png", ".svg", ".pdf", ".jpg", ".gif", ".eps", ".ps")
# Graphviz is quick on nets of hundreds of layers; a minute means that it will not end.
_TIMEOUT_SECONDS = 60
_BLOB = 'shape=octagon, style=filled, fillcolor="#E0E0E0"'
_COLOURS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_NEURON_COLOUR, _OTHER_COLOUR = "#90EE90", "#6495ED"


def draw_net_to_file(
    net: Message,
    path: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
) -> None:
    """Draw a net of the current form into a file of the kind its ending says.

    `.dot` needs nothing; `.png`, `.svg` and `.pdf` need Graphviz's `dot`.

    Raises:
        UnsupportedError: an unknown ending, or an image without Graphviz.
        ProtoError: `rankdir` is unknown, or the file cannot be written.
    """
    image = draw_net(net, Path(path).suffix.lower(), rankdir, phase, lr_mults, str(path))
    with atomic_write(path, "wb", ProtoError) as stream:
        stream.write(image)


def draw_net(
    net: Message,
    suffix: str,
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
    where: str = "drawing",
) -> bytes:
    """The bytes of a file with the ending `suffix`. See draw_net_to_file."""
    text = net_to_dot(net, rankdir, phase, lr_mults)
    if suffix in TEXT_FORMATS:
        return text.encode()
    if suffix in IMAGE_FORMATS:
        return _render(text, suffix, where)
    raise UnsupportedError(
        f"{where}: not a format for drawings; expected one of "
        f"{' '.join(TEXT_FORMATS + IMAGE_FORMATS)}, got {suffix!r}; rename the file"
    )


def net_to_dot(
    net: Message, rankdir: str = "LR", phase: int | None = None, lr_mults: bool = False
) -> str:
    """The net in Graphviz's language: the same net, the same text.

    With a phase only its layers are drawn; with `lr_mults` those that learn say how fast. An
    in-place layer stands beside its blob, joined by one double arrow.

    Caffe: draw.py; the labels, shapes and colours are its own.
    """
    if rankdir not in RANKDIRS:
        raise ProtoError(
            f"rankdir: unknown direction; expected one of {' '.join(RANKDIRS)}, got {rankdir!r}; "
            "LR draws from left to right, TB from top to bottom"
        )
    chosen = layers_of_phase(net, phase)
    blobs = dict.fromkeys(name for layer in chosen for name in (*layer.bottom, *layer.top))
    lines = [f"digraph {_quoted(net.name or 'Net')} {{", f"  rankdir={rankdir};"]
    lines += [f"  {_blob_id(name)} [label={_quoted(name)}, {_BLOB}];" for name in blobs]
    for index, layer in enumerate(chosen):
        label = _quoted(layer_label(layer, rankdir, lr_mults))
        style = f'shape=box, style=filled, fillcolor="{layer_colour(layer)}"'
        lines.append(f"  layer{index} [label={label}, {style}];")
        lines += _edges(layer, f"layer{index}")
    return "\n".join([*lines, "}", ""])


def layer_label(layer: Message, rankdir: str = "LR", lr_mults: bool = False) -> str:
    """What stands in a layer's box: its name, its type, and the geometry of its window."""
    # Space is free along the lines of a box in a tall drawing, across them in a wide one.
    separator = " " if rankdir in ("TB", "BT") else "\n"
    parts = [layer.name, f"({layer.type})"]
    if layer.type in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        parts += [
            f"kernel size: {_sizes(param, 'kernel_size', 'kernel_h', 'kernel_w', 1)}",
            f"stride: {_sizes(param, 'stride', 'stride_h', 'stride_w', 1)}",
            f"pad: {_sizes(param, 'pad', 'pad_h', 'pad_w', 0)}",
        ]
    elif layer.type == "Pooling":
        param = layer.pooling_param
        method = proto.PoolingParameter.PoolMethod.Name(param.pool)
        size = _sizes(param, "kernel_size", "kernel_h", "kernel_w", 0)
        parts[1] = f"({method} {layer.type})"
        parts += [
            f"kernel size: {'global' if param.global_pooling else size}",
            f"stride: {_sizes(param, 'stride', 'stride_h', 'stride_w', 1)}",
            f"pad: {_sizes(param, 'pad', 'pad_h', 'pad_w', 0)}",
        ]
    if lr_mults and len(layer.param):
        parts.append(f"lr mult: {', '.join(f'{spec.lr_mult:g}' for spec in layer.param)}")
    return separator.join(parts)


def _sizes(param: Message, both: str, height: str, width: str, default: int) -> str:
    """The size of a window's two sides, once where they are the same."""
    if param.HasField(height) or param.HasField(width):
        sizes = [getattr(param, height), getattr(param, width)]
    else:
        value = getattr(param, both)
        sizes = [value] if isinstance(value, int) else list(value)
    if len(set(sizes)) <= 1:
        return str(sizes[0] if sizes else default)
    return "x".join(map(str, sizes))


def _edge_label(layer: Message) -> str:
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return ""


def _edges(layer: Message, node: str) -> Iterator[str]:
    if _in_place(layer):
        yield f"  {_blob_id(layer.top[0])} -> {node} [dir=both];"
        return
    for name in layer.bottom:
        yield f"  {_blob_id(name)} -> {node};"
    label = _edge_label(layer)
    for name in layer.top:
        yield f"  {node} -> {_blob_id(name)}" + (f" [label={_quoted(label)}];" if label else ";")


def _in_place(layer: Message) -> bool:
    return len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)


def layers_of_phase(net: Message, phase: int | None) -> list[Message]:
    """The layers that a phase has; without one, all."""
    return [layer for layer in net.layer if phase is None or _in_phase(layer, phase)]


def _in_phase(layer: Message, phase: int) -> bool:
    """Whether the rules let the layer into some net of the phase; levels and stages aside."""
    if len(layer.include):
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return all(not rule.HasField("phase") or rule.phase != phase for rule in layer.exclude)


def layer_colour(layer: Message) -> str:
    """What a layer's box is filled with."""
    return _NEURON_COLOUR if _in_place(layer) else _COLOURS.get(layer.type, _OTHER_COLOUR)


def _blob_id(name: str) -> str:
    return _quoted(f"blob {name}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def has_graphviz() -> bool:
    """Whether Graphviz is installed, so that images can be drawn."""
    return shutil.which("dot") is not None


def _render(text: str, suffix: str, path: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise UnsupportedError(
            f"{path}: a drawing as {suffix} needs Graphviz; expected its program 'dot' on PATH, "
            "got none; install graphviz, or ask for a .dot file"
        )
    try:
        done = subprocess.run(
            [program, f"-T{suffix[1:]}"],
            input=text.encode(),
            capture_output=True,
            timeout=_TIMEOUT_SECONDS,
            check=True,
        )
    except subprocess.SubprocessError as cause:
        words = getattr(cause, "stderr", None) or str(cause).encode()
        raise UnsupportedError(
            f"{path}: Graphviz did not draw it; expected an image as {suffix}, got "
            f"{words.decode(errors='replace').strip()}; ask for a .dot file"
        ) from cause
    return done.stdout
