"""Writes a net as Python code of a PyTorch module, with its state as a safetensors file."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from prototxt_gen.errors import SnapshotError, UnsupportedError
from prototxt_gen.files import atomic_write_text
from runtime.export.comparison import TOLERANCE, random_input, relative_difference
from runtime.export.onnx_graph import Array, import_onnx
from runtime.export.onnx_model import to_onnx
from runtime.export.onnx_options import OnnxOptions
from runtime.export.safetensors import write_safetensors
from runtime.export.torch_ops import Call, expression, literal
from runtime.net import Net

STATE_SUFFIX = ".safetensors"
_BUFFERS = ("mean", "variance", "window")
_HEAD = '''"""A net for PyTorch: `net = load("{state}")`, then `net({inputs})`.

The inputs are {shapes}, float32. The outputs are {outputs}.
"""

import json

import torch
from torch import nn
from torch.nn import functional

SHAPES = {{
{sizes}
}}
BUFFERS = {buffers!r}


class Net(nn.Module):
    """Its state has the names of the layers, such as `{example}`."""

    def __init__(self):
        super().__init__()
        for key, shape in SHAPES.items():
            layer, _, part = key.rpartition(".")
            module = self._modules.setdefault(layer, nn.Module())
            if key in BUFFERS:
                module.register_buffer(part, torch.zeros(shape))
            else:
                module.register_parameter(part, nn.Parameter(torch.zeros(shape)))

    def forward(self, {arguments}):
        state = {{**dict(self.named_parameters()), **dict(self.named_buffers())}}
'''
_TAIL = '''

def load(path):
    """The net with the weights of a safetensors file, for inference."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    state = {}
    for key, entry in header.items():
        start, stop = entry["data_offsets"]
        state[key] = torch.frombuffer(data[start:stop], dtype=torch.float32).reshape(entry["shape"])
    net = Net()
    net.load_state_dict(state)
    return net.eval()
'''


def export_torch(net: Net, path: str | os.PathLike[str]) -> float | None:
    """Write PATH, a Python file, and the state next to it with the suffix .safetensors.

    Returns the largest difference of the outputs from the net's on random input, relative to their
    largest values; None if torch is not installed, and nothing was compared.

    Raises:
        UnsupportedError: onnx is not installed, or a layer has no form here.
        SnapshotError: the results differ, or a file cannot be written.
    """
    target = Path(path)
    state_path = target.with_suffix(STATE_SUFFIX)
    source, state = torch_source(net, state_path.name)
    difference = compare_torch(net, source, state)
    if difference is not None and not difference <= TOLERANCE:
        raise SnapshotError(
            f"{path}: the PyTorch module computes other outputs; expected a difference of at most "
            f"{TOLERANCE:g}, got {difference:.2g}; nothing was written; export it with --to onnx"
        )
    write_safetensors(state_path, state)
    atomic_write_text(target, source, SnapshotError)
    return difference


def torch_source(net: Net, state_name: str) -> tuple[str, dict[str, Array]]:
    """The code of a net, and its state by key; `state_name` is the file that the code mentions.

    Raises:
        UnsupportedError: see export_torch.
    """
    try:
        return _source(net, state_name, OnnxOptions(any_batch=bool(net.inputs)))
    except UnsupportedError:
        # A net for the batch of the prototxt alone.
        return _source(net, state_name, OnnxOptions())


def _source(net: Net, state_name: str, options: OnnxOptions) -> tuple[str, dict[str, Array]]:
    onnx = import_onnx()
    model, _ = to_onnx(net, options)
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    names = {info.name: f"x{place}" for place, info in enumerate(model.graph.input)}
    state: dict[str, Array] = {}
    lines = []
    for node in model.graph.node:
        inputs = [_input(name, names, arrays, state) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        constants = [arrays.get(name) for name in node.input]
        if node.op_type == "MaxPool" and len(node.output) > 1:
            raise Call("MaxPool with indices", node.name, (), (), {}).refuse()
        value = expression(Call(node.op_type, node.name, inputs, constants, attributes))
        for name in node.output:
            names[name] = f"v{len(names)}"
        lines.append(f"{', '.join(names[name] for name in node.output)} = {value}")
    outputs = [names[name] for name in net.outputs]
    lines.append(f"return {', '.join(outputs)}")
    return _code(net, state_name, model, lines, state), state


def compare_torch(net: Net, source: str, state: dict[str, Array]) -> float | None:
    """The largest difference of the module's outputs from the net's; None without torch."""
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    scope: dict[str, Any] = {}
    exec(compile(source, "generated module", "exec"), scope)  # code of this file, not of the user
    module = scope["Net"]()
    module.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in state.items()})
    inputs = {name: random_input(net, name) for name in net.inputs}
    for name, array in inputs.items():
        net.blobs[name].data.mutable_host()[...] = array
    net.forward()
    with torch.no_grad():
        results = module.eval()(*(torch.from_numpy(array) for array in inputs.values()))
    results = results if isinstance(results, tuple) else (results,)
    return max(
        (
            relative_difference(result.numpy(), net.blobs[name].data.host())
            for result, name in zip(results, net.outputs)
        ),
        default=0.0,
    )


def _input(
    name: str, names: dict[str, str], arrays: dict[str, Array], state: dict[str, Array]
) -> str:
    """The expression of an input of a node; a constant that is not small joins the state."""
    if name in names or not name:
        return names.get(name, "None")
    array = arrays[name]
    text = literal(array)
    if text is not None or array.dtype.kind != "f":
        return text or str(array.tolist())
    layer, _, part = name.rpartition("/")
    key = f"{(layer or name).replace('.', '_')}.{part.replace('.', '_')}"
    while key in state:
        key += "_"
    state[key] = array
    names[name] = f"state[{key!r}]"
    return names[name]


def _code(net: Net, state_name: str, model: Any, lines: list[str], state: dict[str, Array]) -> str:
    arguments = [f"x{place}" for place in range(len(model.graph.input))]
    shapes = (" x ".join(map(str, ("N", *net.blobs[name].shape[1:]))) for name in net.inputs)
    head = _HEAD.format(
        state=_safe(state_name),
        inputs=", ".join(arguments),
        shapes=", ".join(f"{_safe(name)}: {shape}" for name, shape in zip(net.inputs, shapes)),
        outputs=_safe(", ".join(net.outputs)),
        sizes="\n".join(f"    {key!r}: {value.shape!r}," for key, value in state.items()),
        buffers=tuple(key for key in state if key.rpartition(".")[2].rstrip("_:") in _BUFFERS),
        example=_safe(next(iter(state), "conv1.weight")),
        arguments=", ".join(arguments),
    )
    return head + "".join(f"        {line}\n" for line in lines) + _TAIL


def _safe(text: str) -> str:
    """A text that can be inside of a docstring."""
    return "".join(letter for letter in text if letter.isprintable() and letter not in '\\"')
