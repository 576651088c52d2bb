"""The operators of our ONNX graphs as expressions of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import UnsupportedError
from runtime.export.onnx_graph import Array

_TO_THE_END = 2**62
_FLOAT, _INT64 = 1, 7


@dataclass(frozen=True)
class Call:
    """A node: its inputs as expressions, those that are small constants as arrays, attributes."""

    op: str
    name: str
    inputs: Sequence[str]
    arrays: Sequence[Array | None]
    attributes: dict[str, Any]

    def whole(self, index: int) -> list[int]:
        """A constant input of whole numbers.

        Raises:
            UnsupportedError: it is computed by the graph.
        """
        array = self.arrays[index] if index < len(self.arrays) else None
        if array is None:
            raise self.refuse()
        return [int(value) for value in array.ravel()]

    def refuse(self) -> UnsupportedError:
        """The error for a node without a form."""
        return UnsupportedError(
            f"'{self.name}': no PyTorch form here for the operator {self.op} with these settings; "
            "expected a net for classification; export it with --to onnx"
        )


def expression(call: Call) -> str:
    """The expression of a node; a tuple if the node has several outputs.

    Raises:
        UnsupportedError: it has none.
    """
    if call.op in _FUNCTIONS:
        return _FUNCTIONS[call.op].format(*call.inputs)
    if call.op not in _FORMS:
        raise call.refuse()
    return _FORMS[call.op](call)


_FUNCTIONS = {
    "Abs": "torch.abs({})",
    "Add": "{} + {}",
    "Div": "{} / {}",
    "Exp": "torch.exp({})",
    "GlobalAveragePool": "{}.mean((2, 3), keepdim=True)",
    "GlobalMaxPool": "{}.amax((2, 3), keepdim=True)",
    "Greater": "{} > {}",
    "Identity": "{}",
    "Log": "torch.log({})",
    "Max": "torch.maximum({}, {})",
    "Mul": "{} * {}",
    "PRelu": "torch.where({0} > 0, {0}, {1} * {0})",
    "Pow": "torch.pow({}, {})",
    "Relu": "functional.relu({})",
    "Sigmoid": "torch.sigmoid({})",
    "Softplus": "functional.softplus({})",
    "Sqrt": "torch.sqrt({})",
    "Sub": "{} - {}",
    "Tanh": "torch.tanh({})",
    "Clip": "torch.clamp({}, {}, {})",
}


def _convolution(call: Call) -> str:
    a = call.attributes
    function = "conv2d" if call.op == "Conv" else "conv_transpose2d"
    values = ", ".join(call.inputs)
    pads = tuple(a["pads"])[:2]
    return (
        f"functional.{function}({values}, stride={tuple(a['strides'])}, padding={pads}, "
        f"dilation={tuple(a['dilations'])}, groups={a['group']})"
    )


def _gemm(call: Call) -> str:
    if call.attributes.get("transB"):
        return f"functional.linear({', '.join(call.inputs)})"
    product = f"{call.inputs[0]} @ {call.inputs[1]}"
    return f"{product} + {call.inputs[2]}" if len(call.inputs) > 2 else product


def _pooling(call: Call) -> str:
    a = call.attributes
    top, left, bottom, right = a.get("pads", (0, 0, 0, 0))
    is_max = call.op == "MaxPool"
    value = call.inputs[0]
    if any((top, left, bottom, right)):
        filling = 'float("-inf")' if is_max else "0.0"
        value = f"functional.pad({value}, ({left}, {right}, {top}, {bottom}), value={filling})"
    function = "max_pool2d" if is_max else "avg_pool2d"
    kernel, stride = tuple(a["kernel_shape"]), tuple(a["strides"])
    return f"functional.{function}({value}, {kernel}, {stride})"


def _lrn(call: Call) -> str:
    a = call.attributes
    return (
        f"functional.local_response_norm({call.inputs[0]}, {a['size']}, alpha={a['alpha']!r}, "
        f"beta={a['beta']!r}, k={a['bias']!r})"
    )


def _batch_norm(call: Call) -> str:
    x, scale, bias, mean, variance = call.inputs
    epsilon = call.attributes["epsilon"]
    return (
        f"functional.batch_norm({x}, {mean}, {variance}, {scale}, {bias}, False, 0.0, {epsilon!r})"
    )


def _slice(call: Call) -> str:
    starts, ends = call.whole(1), call.whole(2)
    axes = call.whole(3) if len(call.inputs) > 3 else list(range(len(starts)))
    steps = call.whole(4) if len(call.inputs) > 4 else [1] * len(starts)
    if all(step == -1 for step in steps):
        return f"torch.flip({call.inputs[0]}, {tuple(axes)})"
    parts = ["slice(None)"] * (max(axes) + 1)
    for axis, start, end in zip(axes, starts, ends):
        parts[axis] = f"slice({start}, {None if end >= _TO_THE_END else end})"
    return f"{call.inputs[0]}[{', '.join(parts)}]"


def _reshape(call: Call) -> str:
    value = call.inputs[0]
    sizes = [
        f"{value}.shape[{axis}]" if size == 0 else str(size)
        for axis, size in enumerate(call.whole(1))
    ]
    return f"{value}.reshape({', '.join(sizes)})" if sizes else f"{value}.reshape(())"


def _reduction(call: Call) -> str:
    axes = call.attributes.get("axes")
    axes = tuple(call.whole(1) if axes is None else axes)
    keep = bool(call.attributes.get("keepdims", 1))
    before, function = {
        "ReduceL1": (".abs()", "sum"),
        "ReduceMax": ("", "amax"),
        "ReduceMean": ("", "mean"),
        "ReduceSum": ("", "sum"),
        "ReduceSumSquare": (".square()", "sum"),
    }[call.op]
    return f"{call.inputs[0]}{before}.{function}({axes}, keepdim={keep})"


def _cast(call: Call) -> str:
    kind = {_FLOAT: "float", _INT64: "long"}.get(call.attributes["to"])
    if kind is None:
        raise call.refuse()
    return f"{call.inputs[0]}.{kind}()"


def _argmax(call: Call) -> str:
    value, axis = call.inputs[0], call.attributes["axis"]
    # The last of equal maxima.
    flipped = f"torch.flip({value}, ({axis},))"
    return f"{value}.shape[{axis}] - 1 - torch.argmax({flipped}, {axis}, keepdim=True)"


def _resize(call: Call) -> str:
    size = tuple(call.whole(3)[2:])
    return (
        f"functional.interpolate({call.inputs[0]}, size={size}, mode='bilinear', "
        "align_corners=True)"
    )


_FORMS: dict[str, Callable[[Call], str]] = {
    "ArgMax": _argmax,
    "AveragePool": _pooling,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Concat": lambda c: f"torch.cat(({', '.join(c.inputs)},), {c.attributes['axis']})",
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Elu": lambda c: f"functional.elu({c.inputs[0]}, {c.attributes['alpha']!r})",
    "Gather": lambda c: f"functional.embedding({c.inputs[1]}, {c.inputs[0]})",
    "Gemm": _gemm,
    "LRN": _lrn,
    "LeakyRelu": lambda c: f"functional.leaky_relu({c.inputs[0]}, {c.attributes['alpha']!r})",
    "MaxPool": _pooling,
    "ReduceL1": _reduction,
    "ReduceMax": _reduction,
    "ReduceMean": _reduction,
    "ReduceSum": _reduction,
    "ReduceSumSquare": _reduction,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": lambda c: f"torch.softmax({c.inputs[0]}, {c.attributes['axis']})",
    "Split": lambda c: f"torch.split({c.inputs[0]}, {c.whole(1)}, {c.attributes['axis']})",
    "Tile": lambda c: f"{c.inputs[0]}.repeat({', '.join(map(str, c.whole(1)))})",
    "Transpose": lambda c: f"{c.inputs[0]}.permute({tuple(c.attributes['perm'])})",
}


def literal(array: Array) -> str | None:
    """A small constant as an expression; None if it belongs into the state of the module."""
    if array.ndim == 0 and array.dtype.kind == "f":
        value = float(array)
        return repr(value) if np.isfinite(value) else f'float("{value}")'
    if array.ndim == 0:
        return str(int(array))
    return None
