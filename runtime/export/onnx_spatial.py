"""Layers over images, and fully connected ones, as ONNX nodes."""

from __future__ import annotations

import numpy as np

from prototxt_gen import proto
from prototxt_gen.geometry import ConvGeometry, PoolGeometry
from runtime.export.onnx_graph import Array, Converter, Step


def _convolution(step: Step) -> list[str]:
    return _convolve(step, "Conv")


def _deconvolution(step: Step) -> list[str]:
    return _convolve(step, "ConvTranspose")


def _convolve(step: Step, op: str) -> list[str]:
    param, label = step.layer.param.convolution_param, step.layer.label
    outputs = []
    # Caffe's convolutions take any number of bottoms, each with a top of its own.
    for value, bottom in zip(step.inputs, step.bottom):
        geometry = ConvGeometry.deconv_input(param, bottom.shape, label)
        weights = [step.weight(index) for index in range(len(step.layer.blobs))]
        outputs.append(
            step.op(
                op,
                value,
                *weights,
                kernel_shape=geometry.kernel,
                pads=geometry.pad * 2,
                strides=geometry.stride,
                dilations=geometry.dilation,
                group=geometry.group,
            )
        )
    return outputs


def _inner_product(step: Step) -> list[str]:
    param = step.layer.param.inner_product_param
    axis = step.bottom[0].canonical_axis(param.axis)
    rows, cols = step.bottom[0].count(0, axis), step.bottom[0].count(axis)
    matrix = step.reshape(step.inputs[0], (rows, cols))
    weights = [step.weight(index) for index in range(len(step.layer.blobs))]
    value = step.op("Gemm", matrix, *weights, transB=0 if param.transpose else 1)
    return [value if len(step.top[0].shape) == 2 else step.reshape(value, step.top[0].shape)]


def _pooling(step: Step) -> list[str]:
    param = step.layer.param.pooling_param
    if len(step.top) > 1:
        raise step.refuse("the second top, the place of the maximum,")
    average = param.pool == proto.PoolingParameter.AVE
    if param.global_pooling:
        return [step.op("GlobalAveragePool" if average else "GlobalMaxPool", step.inputs[0])]
    geometry = PoolGeometry.from_param(param, step.bottom[0].shape, step.layer.label)
    out = geometry.out_shape[2:]
    # Caffe rounds sizes up. Padding at the end as far as the last window reaches gives the same
    # size when ONNX rounds down, in every version of it.
    ends = [
        max(0, (out[i] - 1) * geometry.stride[i] + geometry.kernel[i] - size - geometry.pad[i])
        for i, size in enumerate(geometry.in_shape[2:])
    ]
    if any(end >= kernel for end, kernel in zip(ends, geometry.kernel)):
        raise step.refuse("a window that lies wholly beyond the image")
    shared = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.stride,
        "pads": (*geometry.pad, *ends),
    }
    if not average:
        return [step.op("MaxPool", step.inputs[0], **shared)]
    value = step.op("AveragePool", step.inputs[0], count_include_pad=1, **shared)
    correction = _average_correction(geometry)
    if not np.all(correction == 1):
        value = step.op("Mul", value, step.constant(correction, "window"))
    return [value]


def _average_correction(geometry: PoolGeometry) -> Array:
    """Kernel size over the size Caffe divides by: the window's part within size + pad."""
    factors = []
    for i, size in enumerate(geometry.in_shape[2:]):
        starts = np.arange(geometry.out_shape[2 + i]) * geometry.stride[i] - geometry.pad[i]
        stops = np.minimum(starts + geometry.kernel[i], size + geometry.pad[i])
        factors.append(geometry.kernel[i] / (stops - starts))
    return np.multiply.outer(factors[0], factors[1])[None, None].astype(np.float32)


def _lrn(step: Step) -> list[str]:
    param, value = step.layer.param.lrn_param, step.inputs[0]
    size, alpha, beta = int(param.local_size), float(param.alpha), float(param.beta)
    if param.norm_region == proto.LRNParameter.ACROSS_CHANNELS:
        return [step.op("LRN", value, size=size, alpha=alpha, beta=beta, bias=float(param.k))]
    mean = step.op(
        "AveragePool",
        step.op("Mul", value, value),
        kernel_shape=(size, size),
        pads=(size // 2,) * 4,
        strides=(1, 1),
        count_include_pad=1,
    )
    power = step.op("Pow", step.affine(mean, alpha, 1.0), step.scalar(beta, "beta"))
    return [step.op("Div", value, power)]


def _batch_norm(step: Step) -> list[str]:
    layer = step.layer
    if layer.param.batch_norm_param.HasField("use_global_stats") and (
        not layer.param.batch_norm_param.use_global_stats
    ):
        raise step.refuse("use_global_stats: false")
    mean, variance, divisor = (blob.data.host() for blob in layer.blobs)
    factor = 0.0 if divisor.ravel()[0] == 0 else 1.0 / float(divisor.ravel()[0])
    channels = mean.size
    value = step.op(
        "BatchNormalization",
        step.inputs[0],
        step.constant(np.ones(channels, np.float32), "scale"),
        step.constant(np.zeros(channels, np.float32), "shift"),
        step.constant(mean * factor, "mean"),
        step.constant(variance * factor, "variance"),
        epsilon=float(layer.param.batch_norm_param.eps),
    )
    return [value]


def _mvn(step: Step) -> list[str]:
    param, shape = step.layer.param.mvn_param, step.bottom[0].shape
    axes = list(range(1 if param.across_channels else 2, len(shape)))
    mean = step.op("ReduceMean", step.inputs[0], axes=axes, keepdims=1)
    value = step.op("Sub", step.inputs[0], mean)
    if param.normalize_variance:
        variance = step.op("ReduceMean", step.op("Mul", value, value), axes=axes, keepdims=1)
        deviation = step.affine(step.op("Sqrt", variance), 1.0, float(param.eps))
        value = step.op("Div", value, deviation)
    return [value]


CONVERTERS: dict[str, Converter] = {
    "Convolution": _convolution,
    "Deconvolution": _deconvolution,
    "InnerProduct": _inner_product,
    "Pooling": _pooling,
    "LRN": _lrn,
    "BatchNorm": _batch_norm,
    "MVN": _mvn,
}
