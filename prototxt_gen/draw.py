"""Draws a net with Graphviz: layers, blobs, and the channels of the blobs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, UnsupportedError
from prototxt_gen.files import atomic_write
from prototxt_gen.proto import Message

RANKDIRS = ("LR", "TB", "BT", "RL")
TEXT_FORMATS = (".dot", ".gv", ".raw")
IMAGE_FORMATS = (".png", ".svg", ".pdf", ".jpg", ".gif", ".eps", ".ps")
# Seconds. Graphviz draws nets of hundreds of layers in less.
_TIMEOUT_SECONDS = 60
_BLOB = 'shape=octagon, style=filled, fillcolor="#E0E0E0"'
_COLOURS = {
    "Convolution": "#FF5050",
    "Deconvolution": "#FF5050",
    "Pooling": "#FF9900",
    "InnerProduct": "#CC33FF",
}
_NEURON_COLOUR, _OTHER_COLOUR = "#90EE90", "#6495ED"


Channels = Mapping[int, Mapping[tuple[str, str], int]]
"""Channels of blobs: by phase, and then by the names of a layer and of its top."""


def draw_net_to_file(
    net: Message,
    path: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
) -> None:
    """Draw a net of the current form into a file; its suffix determines the format.

    `.dot` needs no other program; `.png`, `.svg` and `.pdf` need Graphviz's `dot`.

    Raises:
        UnsupportedError: an unknown suffix, or an image without Graphviz.
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
    channels: Channels | None = None,
) -> bytes:
    """The bytes of a drawing in the format of a suffix; see draw_net_to_file and net_to_dot.

    Raises:
        UnsupportedError: an unknown suffix, or an image without Graphviz.
        ProtoError: `rankdir` is unknown.
    """
    text = net_to_dot(net, rankdir, phase, lr_mults, channels)
    if suffix in TEXT_FORMATS:
        return text.encode()
    if suffix in IMAGE_FORMATS:
        return _render(text, suffix, where)
    raise UnsupportedError(
        f"{where}: not a format for drawings; expected one of "
        f"{' '.join(TEXT_FORMATS + IMAGE_FORMATS)}, got {suffix!r}; rename the file"
    )


def net_to_dot(
    net: Message,
    rankdir: str = "LR",
    phase: int | None = None,
    lr_mults: bool = False,
    channels: Channels | None = None,
) -> str:
    """The net in the DOT language; equal nets give equal text.

    An in-place layer is linked to its blob by one double arrow. Arrows from layers are labelled
    with the channels of their blob; without `channels`, only if the layer has a `num_output`.

    Args:
        net: of the current form.
        rankdir: the direction of the flow, one of RANKDIRS.
        phase: draw the layers of this phase; None for all, those of one phase with dashed boxes.
        lr_mults: whether the multipliers of learning rates are drawn.
        channels: those of the phases that are drawn, or a part of them.

    Raises:
        ProtoError: `rankdir` is unknown.

    Caffe: draw.py, with its labels, shapes and colours.
    """
    if rankdir not in RANKDIRS:
        raise ProtoError(
            f"rankdir: unknown direction; expected one of {' '.join(RANKDIRS)}, got {rankdir!r}; "
            "LR draws from left to right, TB from top to bottom"
        )
    drawn = layers_of_phase(net, phase)
    blobs = dict.fromkeys(name for layer in drawn for name in (*layer.bottom, *layer.top))
    # A tall drawing has room for wide labels, and a wide drawing for high ones.
    separator = " " if rankdir in ("TB", "BT") else "\n"
    lines = [f"digraph {_quoted(net.name or 'Net')} {{", f"  rankdir={rankdir};"]
    lines += [f"  {_blob_id(name)} [label={_quoted(name)}, {_BLOB}];" for name in blobs]
    for index, layer in enumerate(drawn):
        mark = phase_mark(layer) if phase is None else ""
        label = separator.join(layer_lines(layer, lr_mults) + [mark] * bool(mark))
        style = '"filled,dashed"' if mark else "filled"
        style = f'shape=box, style={style}, fillcolor="{layer_colour(layer)}"'
        lines.append(f"  layer{index} [label={_quoted(label)}, {style}];")
        lines += _edges(layer, f"layer{index}", channels or {})
    return "\n".join([*lines, "}", ""])


def layer_lines(layer: Message, lr_mults: bool = False) -> list[str]:
    """The lines in a layer's box: its name, its type, and the geometry of its window."""
    lines = [layer.name, f"({layer.type})"]
    if layer.type in ("Convolution", "Deconvolution"):
        param = layer.convolution_param
        lines += [
            f"kernel size: {_sizes(param, 'kernel_size', 'kernel_h', 'kernel_w', 1)}",
            f"stride: {_sizes(param, 'stride', 'stride_h', 'stride_w', 1)}",
            f"pad: {_sizes(param, 'pad', 'pad_h', 'pad_w', 0)}",
        ]
    elif layer.type == "Pooling":
        param = layer.pooling_param
        method = proto.PoolingParameter.PoolMethod.Name(param.pool)
        size = _sizes(param, "kernel_size", "kernel_h", "kernel_w", 0)
        lines[1] = f"({method} {layer.type})"
        lines += [
            f"kernel size: {'global' if param.global_pooling else size}",
            f"stride: {_sizes(param, 'stride', 'stride_h', 'stride_w', 1)}",
            f"pad: {_sizes(param, 'pad', 'pad_h', 'pad_w', 0)}",
        ]
    if lr_mults and len(layer.param):
        lines.append(f"lr mult: {', '.join(f'{spec.lr_mult:g}' for spec in layer.param)}")
    return lines


def phase_mark(layer: Message) -> str:
    """`TRAIN only` or `TEST only` for a layer of one phase, else an empty string."""
    train, test = (in_phase(layer, phase) for phase in (proto.TRAIN, proto.TEST))
    return "" if train == test else f"{'TRAIN' if train else 'TEST'} only"


def _sizes(param: Message, both: str, height: str, width: str, default: int) -> str:
    """The sizes of a window, as one number if they are equal."""
    if param.HasField(height) or param.HasField(width):
        sizes = [getattr(param, height), getattr(param, width)]
    else:
        value = getattr(param, both)
        sizes = [value] if isinstance(value, int) else list(value)
    if len(set(sizes)) <= 1:
        return str(sizes[0] if sizes else default)
    return "x".join(map(str, sizes))


def edge_label(layer: Message) -> str:
    """The label of a layer's tops if their channels are unknown. Caffe: get_edge_label."""
    if layer.type == "Data":
        return f"Batch {layer.data_param.batch_size}"
    if layer.type in ("Convolution", "Deconvolution"):
        return str(layer.convolution_param.num_output)
    if layer.type == "InnerProduct":
        return str(layer.inner_product_param.num_output)
    return ""


def channel_label(layer: Message, top: str, channels: Channels) -> str:
    """The channels of a top in the phases of its layer; empty if they are unknown."""
    counts = {
        counts[layer.name, top]
        for phase, counts in channels.items()
        if in_phase(layer, phase) and (layer.name, top) in counts
    }
    return ", ".join(str(count) for count in sorted(counts))


def _edges(layer: Message, node: str, channels: Channels) -> Iterator[str]:
    if in_place(layer):
        yield f"  {_blob_id(layer.top[0])} -> {node} [dir=both];"
        return
    for name in layer.bottom:
        yield f"  {_blob_id(name)} -> {node};"
    for name in layer.top:
        label = channel_label(layer, name, channels) or edge_label(layer)
        yield f"  {node} -> {_blob_id(name)}" + (f" [label={_quoted(label)}];" if label else ";")


def in_place(layer: Message) -> bool:
    """Whether a layer writes its result to its only bottom."""
    return len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)


def layers_of_phase(net: Message, phase: int | None) -> list[Message]:
    """The layers of a phase; all layers if the phase is None."""
    return [layer for layer in net.layer if phase is None or in_phase(layer, phase)]


def in_phase(layer: Message, phase: int) -> bool:
    """Whether the rules include the layer in the phase; levels and stages are ignored."""
    if len(layer.include):
        return any(not rule.HasField("phase") or rule.phase == phase for rule in layer.include)
    return all(not rule.HasField("phase") or rule.phase != phase for rule in layer.exclude)


def layer_colour(layer: Message) -> str:
    """The fill colour of a layer's box."""
    return _NEURON_COLOUR if in_place(layer) else _COLOURS.get(layer.type, _OTHER_COLOUR)


def _blob_id(name: str) -> str:
    return _quoted(f"blob {name}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def has_graphviz() -> bool:
    """Whether Graphviz is installed."""
    return shutil.which("dot") is not None


def _render(text: str, suffix: str, path: str) -> bytes:
    program = shutil.which("dot")
    if program is None:
        raise UnsupportedError(
            f"{path}: a drawing as {suffix} needs Graphviz; expected its program 'dot' on PATH, "
            "got none; install graphviz, or write a .dot file"
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
            f"{path}: Graphviz failed; expected an image as {suffix}, got "
            f"{words.decode(errors='replace').strip()}; write a .dot file"
        ) from cause
    return done.stdout
