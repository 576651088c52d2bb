"""Neurons, arithmetic between blobs, and changes of shape, as ONNX nodes."""

from __future__ import annotations

import functools
import math

import numpy as np

from prototxt_gen import proto
from runtime.export.onnx_graph import Converter, Step


def _simple(op: str) -> Converter:
    return lambda step: [step.op(op, step.inputs[0])]


def _identity(step: Step) -> list[str]:
    """The same value under another name: no node."""
    return [step.inputs[0]] * len(step.top)


def _nothing(step: Step) -> list[str]:
    return []


def _relu(step: Step) -> list[str]:
    slope = float(step.layer.param.relu_param.negative_slope)
    if slope == 0:
        return [step.op("Relu", step.inputs[0])]
    return [step.op("LeakyRelu", step.inputs[0], alpha=slope)]


def _prelu(step: Step) -> list[str]:
    # The slope broadcasts from the right: (C,1,1) over (N,C,H,W).
    slope = step.layer.blobs[0]
    shape = (slope.count(),) + (1,) * (len(step.bottom[0].shape) - 2)
    return [step.op("PRelu", step.inputs[0], step.weight(0, shape))]


def _elu(step: Step) -> list[str]:
    return [step.op("Elu", step.inputs[0], alpha=float(step.layer.param.elu_param.alpha))]


def _power(step: Step) -> list[str]:
    param = step.layer.param.power_param
    value = step.affine(step.inputs[0], param.scale, param.shift)
    if param.power != 1:
        value = step.op("Pow", value, step.scalar(param.power, "power"))
    return [value]


def _exp(step: Step) -> list[str]:
    param = step.layer.param.exp_param
    base = 1.0 if param.base == -1 else math.log(param.base)
    return [step.op("Exp", step.affine(step.inputs[0], base * param.scale, base * param.shift))]


def _log(step: Step) -> list[str]:
    param = step.layer.param.log_param
    value = step.op("Log", step.affine(step.inputs[0], param.scale, param.shift))
    return [step.affine(value, 1.0 if param.base == -1 else 1.0 / math.log(param.base), 0.0)]


def _threshold(step: Step) -> list[str]:
    threshold = step.scalar(step.layer.param.threshold_param.threshold, "threshold")
    above = step.op("Greater", step.inputs[0], threshold)
    # 1 is ONNX's number for float32.
    return [step.op("Cast", above, to=1)]


def _clip(step: Step) -> list[str]:
    param = step.layer.param.clip_param
    low, high = step.scalar(param.min, "min"), step.scalar(param.max, "max")
    return [step.op("Clip", step.inputs[0], low, high)]


def _swish(step: Step) -> list[str]:
    inner = step.affine(step.inputs[0], step.layer.param.swish_param.beta, 0.0)
    return [step.op("Mul", step.inputs[0], step.op("Sigmoid", inner))]


def _eltwise(step: Step) -> list[str]:
    param, values = step.layer.param.eltwise_param, list(step.inputs)
    if param.operation == proto.EltwiseParameter.SUM and len(param.coeff):
        values = [step.affine(value, coeff, 0.0) for value, coeff in zip(values, param.coeff)]
    op = {
        proto.EltwiseParameter.PROD: "Mul",
        proto.EltwiseParameter.SUM: "Add",
        proto.EltwiseParameter.MAX: "Max",
    }[param.operation]
    return [functools.reduce(lambda a, b: step.op(op, a, b), values)]


def _scale(step: Step) -> list[str]:
    param = step.layer.param.scale_param
    value, factor = _broadcast(step, "Mul", step.inputs[0], param.axis)
    if param.bias_term:
        bias = step.weight(len(step.layer.blobs) - 1, factor)
        value = step.op("Add", value, bias)
    return [value]


def _bias(step: Step) -> list[str]:
    return [_broadcast(step, "Add", step.inputs[0], step.layer.param.bias_param.axis)[0]]


def _broadcast(step: Step, op: str, value: str, axis: int) -> tuple[str, tuple[int, ...]]:
    """Apply `op` to a value and the second bottom or weight, laid along the axes from `axis`."""
    large = step.bottom[0]
    small = step.bottom[1] if len(step.bottom) > 1 else step.layer.blobs[0]
    start = large.canonical_axis(axis) if small.shape else 0
    shape = (1,) * start + small.shape + (1,) * (large.num_axes - start - small.num_axes)
    other = step.reshape(step.inputs[1], shape) if len(step.bottom) > 1 else step.weight(0, shape)
    return step.op(op, value, other), shape


def _concat(step: Step) -> list[str]:
    param = step.layer.param.concat_param
    axis = param.concat_dim if param.HasField("concat_dim") else param.axis
    return [step.op("Concat", *step.inputs, axis=step.bottom[0].canonical_axis(axis))]


def _slice(step: Step) -> list[str]:
    param = step.layer.param.slice_param
    axis = step.bottom[0].canonical_axis(
        param.slice_dim if param.HasField("slice_dim") else param.axis
    )
    sizes = step.constant(np.array([blob.shape[axis] for blob in step.top], np.int64), "sizes")
    return step.graph.node(
        "Split", [step.inputs[0], sizes], step.name, outputs=len(step.top), axis=axis
    )


def _reshape(step: Step) -> list[str]:
    return [step.reshape(step.inputs[0], step.top[0].shape)]


def _softmax(step: Step) -> list[str]:
    axis = step.bottom[0].canonical_axis(step.layer.param.softmax_param.axis)
    return [step.op("Softmax", step.inputs[0], axis=axis)]


def _crop(step: Step) -> list[str]:
    param, source = step.layer.param.crop_param, step.bottom[0]
    first = source.canonical_axis(param.axis)
    offsets = list(param.offset) or [0]
    if len(offsets) == 1:
        offsets *= source.num_axes - first
    axes = range(first, source.num_axes)
    stops = [at + step.top[0].shape[axis] for at, axis in zip(offsets, axes)]
    bounds = [
        step.constant(np.array(list(values), np.int64), what)
        for values, what in ((offsets, "starts"), (stops, "stops"), (axes, "axes"))
    ]
    return [step.op("Slice", step.inputs[0], *bounds)]


def _argmax(step: Step) -> list[str]:
    param = step.layer.param.argmax_param
    if param.top_k != 1 or (param.out_max_val and not param.HasField("axis")):
        raise step.refuse("top_k above 1, or the maximum beside its place,")
    value, axis = step.inputs[0], 1
    if param.HasField("axis"):
        axis = step.bottom[0].canonical_axis(param.axis)
    else:
        value = step.reshape(value, (step.bottom[0].shape[0], -1))
    if param.out_max_val:
        return [step.op("ReduceMax", value, axes=[axis], keepdims=1)]
    place = step.op("ArgMax", value, axis=axis, keepdims=1, select_last_index=1)
    return [step.reshape(step.op("Cast", place, to=1), step.top[0].shape)]


def _reduction(step: Step) -> list[str]:
    param, bottom = step.layer.param.reduction_param, step.bottom[0]
    axis = bottom.canonical_axis(param.axis)
    value = step.reshape(step.inputs[0], (bottom.count(0, axis), bottom.count(axis)))
    op = {
        proto.ReductionParameter.SUM: "ReduceSum",
        proto.ReductionParameter.ASUM: "ReduceL1",
        proto.ReductionParameter.SUMSQ: "ReduceSumSquare",
        proto.ReductionParameter.MEAN: "ReduceMean",
    }[param.operation]
    if op == "ReduceSum":
        axes = step.constant(np.array([1], np.int64), "axes")
        value = step.op(op, value, axes, keepdims=0)
    else:
        value = step.op(op, value, axes=[1], keepdims=0)
    return [step.reshape(step.affine(value, param.coeff, 0.0), step.top[0].shape)]


def _tile(step: Step) -> list[str]:
    param, bottom = step.layer.param.tile_param, step.bottom[0]
    repeats = np.ones(bottom.num_axes, np.int64)
    repeats[bottom.canonical_axis(param.axis)] = param.tiles
    return [step.op("Tile", step.inputs[0], step.constant(repeats, "repeats"))]


def _embed(step: Step) -> list[str]:
    # 7 is ONNX's number for int64.
    index = step.op("Cast", step.inputs[0], to=7)
    value = step.op("Gather", step.weight(0), index)
    if len(step.layer.blobs) > 1:
        value = step.op("Add", value, step.weight(1))
    return [value]


def _parameter(step: Step) -> list[str]:
    return [step.weight(0)]


CONVERTERS: dict[str, Converter] = {
    "AbsVal": _simple("Abs"),
    "ArgMax": _argmax,
    "BNLL": _simple("Softplus"),
    "Bias": _bias,
    "Clip": _clip,
    "Concat": _concat,
    "Crop": _crop,
    "Dropout": _identity,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Embed": _embed,
    "Exp": _exp,
    "Flatten": _reshape,
    "Log": _log,
    "PReLU": _prelu,
    "Parameter": _parameter,
    "Power": _power,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _simple("Sigmoid"),
    "Silence": _nothing,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _identity,
    "Swish": _swish,
    "TanH": _simple("Tanh"),
    "Threshold": _threshold,
    "Tile": _tile,
}
