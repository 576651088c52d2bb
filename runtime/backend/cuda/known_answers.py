"""Small works of each kernel family, for which another backend gives the answers.

A rung is a way to compute an op; a ladder lists the rungs of an op, the fastest first. A rung that
fails is replaced by the next one. The last rung of a ladder, and a family with one rung, has no
replacement.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Array, Backend, Draw, Epilogue, HostArray, Layout
from runtime.backend.pointwise import Function, FunctionKind

IMPLICIT, WINOGRAD_2, WINOGRAD_4 = "implicit_gemm", "winograd_2x2", "winograd_4x4"
TENSOR_TF32, TENSOR_BF16 = "tensor_tf32", "tensor_bf16"
POOL_BY_HALF, LRN_OF_5 = "max_pool_2x2", "lrn_5"
LADDERS = (
    (TENSOR_BF16, IMPLICIT),
    (TENSOR_TF32, IMPLICIT),
    (WINOGRAD_4, WINOGRAD_2, IMPLICIT),
    (POOL_BY_HALF, "max_pool"),
    (LRN_OF_5, "lrn"),
)
SOURCES = {
    **dict.fromkeys(("conv", "conv_weight"), IMPLICIT),
    **{
        name: name
        for name in (
            *("augment", "ave_pool", "bias", "dropout", "functions", "gemm", "lrn", "max_pool"),
            *(
                "losses",
                "normalize",
                "pointwise",
                "relu",
                "rows",
                "sgd_update",
                "softmax",
                "softmax_loss",
            ),
            *("solver_updates", "strided", "sums", "vectors"),
        )
    },
}
"""The rung that must be right before a kernel of a source file is used."""
_FLOAT = np.dtype(np.float32)
Work = Callable[["Bench"], list[HostArray]]


@dataclass
class Bench:
    """A backend that does a work; `algorithm` replaces the choice of a plan on a device."""

    backend: Backend
    algorithm: str | None = None

    def up(self, host: HostArray) -> Array:
        """A copy on the device. Shapes: any; the result as host."""
        memory = self.backend.memory
        flat = memory.empty(host.size, host.dtype)
        memory.upload(np.ascontiguousarray(host).reshape(-1), flat)
        return memory.view(flat, 0, host.shape)

    def new(self, shape: Sequence[int], dtype: Any = _FLOAT) -> Array:
        """An array that the work overwrites; zeros. Shapes: `shape`."""
        return self.up(np.zeros(tuple(shape), dtype))

    def down(self, *arrays: Array) -> list[HostArray]:
        """Copies on the host. Shapes: as the arrays."""
        hosts = [np.empty(array.shape, array.dtype) for array in arrays]
        for array, host in zip(arrays, hosts):
            self.backend.memory.download(array, host)
        return hosts


def _numbers(*shape: int, seed: int = 0) -> HostArray:
    """Whole numbers from -4 to 4, whose products and sums are exact in every precision."""
    return np.random.default_rng((seed, *shape)).integers(-4, 5, shape).astype(_FLOAT)


def _convolution(*geometries: ConvGeometry) -> Work:
    def work(bench: Bench) -> list[HostArray]:
        return [array for geom in geometries for array in passes(bench, geom)]

    def passes(bench: Bench, geom: ConvGeometry) -> list[HostArray]:
        conv = bench.backend.conv
        plan = conv.plan(geom)
        if bench.algorithm is not None:
            plan = dataclasses.replace(plan, algorithm=bench.algorithm)
        x, weight = bench.up(_numbers(*geom.in_shape)), bench.up(_numbers(*geom.weight_shape))
        dy, bias = bench.up(_numbers(*geom.out_shape)), bench.up(_numbers(geom.k))
        y, dx = bench.new(geom.out_shape), bench.new(geom.in_shape)
        dw = bench.up(_numbers(*geom.weight_shape))
        conv.forward(plan, x, weight, Epilogue(bias, relu=True), y, None)
        conv.backward_data(plan, dy, weight, dx, None)
        conv.backward_weight(plan, x, dy, dw)
        return bench.down(y, dx, dw)

    return work


def _products(bench: Bench) -> list[HostArray]:
    """Sizes that select each tile, and a depth that is split."""
    results = []
    for m, n, k, trans_a, trans_b in (
        (70, 33, 520, False, True),
        (9, 70, 12, True, False),
        (130, 131, 17, True, True),
        (129, 70, 19, False, False),
    ):
        a = bench.up(_numbers(k, m) if trans_a else _numbers(m, k))
        b, c = bench.up(_numbers(n, k) if trans_b else _numbers(k, n)), bench.up(_numbers(m, n))
        bench.backend.products.gemm(trans_a, trans_b, 0.5, a, b, 2.0, c)
        results.append(c)
    return bench.down(*results)


def _vectors(bench: Bench) -> list[HostArray]:
    x, y, out = bench.up(_numbers(1027)), bench.up(_numbers(1027, seed=1)), bench.new((1027,))
    memory, vectors = bench.backend.memory, bench.backend.vectors
    filled = bench.new((1027,))
    vectors.axpy(0.5, x, y)
    vectors.scal(2.0, y)
    vectors.sub(x, y, out)
    memory.fill(filled, 2.5)
    memory.copy_2d(x, filled, 3, 100, (1, 300), (2, 200))
    return bench.down(x, y, out, filled)


def _sums(bench: Bench) -> list[HostArray]:
    x, y = bench.up(_numbers(9001)), bench.up(_numbers(9001, seed=1))
    vectors = bench.backend.vectors
    return [np.array([vectors.asum(x), vectors.sumsq(x), vectors.dot(x, y)])]


def _sgd(bench: Bench) -> list[HostArray]:
    w, dw, history = (bench.up(_numbers(1027, seed=i)) for i in range(1, 4))
    bench.backend.vectors.sgd_update(w, dw, history, 0.5, 0.25, 0.125)
    return bench.down(w, history)


def _bias(bench: Bench) -> list[HostArray]:
    results = []
    for layout in (Layout(3, 5, 409), Layout(19, 70, 1)):
        y = bench.up(_numbers(layout.outer, layout.channels, layout.inner))
        values, sums = bench.up(_numbers(layout.channels)), bench.new((layout.channels,))
        bench.backend.products.bias_forward(layout, values, y)
        bench.backend.products.bias_backward(layout, y, sums)
        results += [y, sums]
    return bench.down(*results)


def _relu(bench: Bench) -> list[HostArray]:
    x, dy = bench.up(_numbers(1027)), bench.up(_numbers(1027, seed=1))
    y, dx = bench.new((1027,)), bench.new((1027,))
    bench.backend.neurons.relu_forward(x, y, 0.25)
    bench.backend.neurons.relu_backward(x, dy, dx, 0.0)
    return bench.down(y, dx)


def _dropout(bench: Bench) -> list[HostArray]:
    x, y = bench.up(_numbers(3, 343)), bench.new((3, 343))
    mask, dx = bench.new((3, 343), np.uint8), bench.new((3, 343))
    bench.backend.neurons.dropout_forward(x, y, mask, 0.5, Draw(7, 8, 9))
    bench.backend.neurons.dropout_backward(x, mask, dx, 0.5)
    return bench.down(y, mask, dx)


def _channels(bench: Bench) -> list[HostArray]:
    layout = Layout(3, 5, 409)
    shape, ops = (layout.outer, layout.channels, layout.inner), bench.backend.pointwise
    x, dy = bench.up(_numbers(*shape)), bench.up(_numbers(*shape, seed=1))
    y, dx = bench.new(shape), bench.new(shape)
    centre, scale, shift = (bench.up(_numbers(5, seed=i)) for i in (1, 2, 3))
    sums, slopes = bench.new((5,)), bench.new((5,))
    ops.affine(layout, x, centre, scale, shift, True, y)
    ops.product_sums(layout, x, dy, sums)
    ops.prelu_backward_slope(layout, x, dy, slopes)
    ops.prelu_backward(layout, x, dy, scale, dx)
    inputs, outputs = [x, dy, y], [bench.new(shape) for _ in range(4)]
    winner = bench.new(shape, np.int32)
    ops.eltwise_sum(inputs, [1.0, -2.0, 0.5], True, outputs[0])
    ops.eltwise_product(inputs, outputs[1])
    ops.eltwise_max(inputs, outputs[2], winner)
    ops.eltwise_max_backward(x, winner, 1, outputs[3])
    return bench.down(y, dx, sums, slopes, *outputs)


def _functions(bench: Bench) -> list[HostArray]:
    ops, results = bench.backend.pointwise, []
    for kind in (FunctionKind.ABS, FunctionKind.SIGMOID, FunctionKind.TANH):
        x, dy = bench.up(_numbers(1027)), bench.up(_numbers(1027, seed=1))
        y, dx = bench.new((1027,)), bench.new((1027,))
        function = Function(kind, a=1.0)
        ops.function_forward(function, x, y)
        ops.function_backward(function, x, y, dy, dx)
        results += [y, dx]
    return bench.down(*results)


def _max_pool(geom: PoolGeometry) -> Work:
    def work(bench: Bench) -> list[HostArray]:
        x, dy = bench.up(_numbers(*geom.in_shape)), bench.up(_numbers(*geom.out_shape))
        y, mask = bench.new(geom.out_shape), bench.new(geom.out_shape, np.int32)
        dx = bench.new(geom.in_shape)
        bench.backend.pool.max_forward(geom, x, y, mask)
        bench.backend.pool.max_backward(geom, dy, mask, dx)
        return bench.down(y, mask, dx)

    return work


def _ave_pool(bench: Bench) -> list[HostArray]:
    geom = PoolGeometry(2, 3, 7, 6, (3, 2), (2, 2), (1, 0))
    x, dy = bench.up(_numbers(*geom.in_shape)), bench.up(_numbers(*geom.out_shape))
    y, dx = bench.new(geom.out_shape), bench.new(geom.in_shape)
    bench.backend.pool.ave_forward(geom, x, y)
    bench.backend.pool.ave_backward(geom, dy, dx)
    return bench.down(y, dx)


def _lrn(size: int) -> Work:
    def work(bench: Bench) -> list[HostArray]:
        geom = LRNGeometry(2, 19, 3, 5, size, 0.5)
        shape = (geom.n, geom.c, geom.h, geom.w)
        x, dy = bench.up(_numbers(*shape)), bench.up(_numbers(*shape, seed=1))
        scale, y, dx = (bench.new(shape) for _ in range(3))
        bench.backend.lrn.forward(geom, x, scale, y)
        bench.backend.lrn.backward(geom, x, y, scale, dy, dx)
        return bench.down(scale, y, dx)

    return work


def _softmax(bench: Bench) -> list[HostArray]:
    results = []
    for layout in (Layout(11, 40, 1), Layout(2, 5, 40)):
        shape, ops = (layout.outer, layout.channels, layout.inner), bench.backend.softmax
        x, y, dx = bench.up(_numbers(*shape)), bench.new(shape), bench.new(shape)
        ops.forward(layout, x, y)
        ops.backward(layout, y, x, dx)
        results += [y, dx]
    return bench.down(*results)


def _softmax_loss(bench: Bench) -> list[HostArray]:
    layout = Layout(11, 40, 1)
    ops, shape = bench.backend.softmax, (11, 40, 1)
    x, prob, dx = bench.up(_numbers(*shape)), bench.new(shape), bench.new(shape)
    label = bench.up((np.arange(11) % 40).astype(_FLOAT))
    loss, stats, share = (bench.new((1,)) for _ in range(3))
    ops.forward(layout, x, prob)
    ops.loss_forward(layout, prob, label, 1, None, loss, stats)
    ops.loss_backward(layout, prob, label, 1, 0.5, stats, dx)
    ops.accuracy(layout, prob, label, None, 2, share)
    return bench.down(loss, stats, dx, share)


def _updates(bench: Bench) -> list[HostArray]:
    """Nesterov and Adam by the kernels of layers; a backend without them uses NumPy."""
    w, dw, first, second = (_numbers(1027, seed=i) for i in range(1, 5))
    second = np.abs(second)
    kernels = bench.backend.kernels
    if kernels is None:
        velocity = 0.5 * first + 0.25 * dw
        step = 1.5 * velocity - 0.5 * first
        mean, square = 0.5 * first + 0.5 * dw, 0.75 * second + 0.25 * dw * dw
        move = 0.25 * mean / (np.sqrt(square) + np.float32(1))
        return [w - step, velocity, w - move, mean, square]
    settings = (1027, 0.25, None, 0.0, 0, 0)
    args = [bench.up(array) for array in (dw, w, first)]
    kernels.elementwise("solver_updates", "nesterov", 1027, (*args, *settings, 0.5, 1.5))
    results = args[1:]
    args = [bench.up(array) for array in (dw, w, first, second)]
    constants = (1.0, 0.5, 0.5, 0.75, 0.25)
    kernels.elementwise("solver_updates", "adam", 1027, (*args, *settings, *constants))
    return bench.down(*results, *args[1:])


def _strided(bench: Bench) -> list[HostArray]:
    """A transposition by the kernels of layers; a backend without them uses NumPy."""
    x, kernels = _numbers(7, 11, 29), bench.backend.kernels
    if kernels is None:
        return [np.ascontiguousarray(x.transpose(2, 1, 0))]
    y = bench.new((29, 11, 7))
    sizes, x_steps, y_steps = (1, 1, 1, 29, 11, 7), (0, 0, 0, 1, 29, 319), (0, 0, 0, 77, 7, 1)
    args = (bench.up(x), y, x.size, 0, 0, 1, 0, *sizes, *x_steps, *y_steps)
    kernels.elementwise("strided", "strided", x.size, args)
    return bench.down(y)


def _normalize(bench: Bench) -> list[HostArray]:
    """Norms over channels by a kernel of layers; a backend without them uses NumPy."""
    x, dy, scale = _numbers(2, 5, 300), _numbers(2, 5, 300, seed=1), _numbers(5)
    kernels = bench.backend.kernels
    if kernels is None:
        norm = np.sqrt(np.square(x).sum(axis=1) + np.float32(1))
        unit, slope = x / norm[:, None], dy * scale[:, None]
        dx = (slope - unit * (slope * unit).sum(axis=1, keepdims=True)) / norm[:, None]
        return [norm, unit * scale[:, None], dx, dy * unit]
    given = [bench.up(array) for array in (x, scale)]
    norm, y, dx, share = (bench.new(s) for s in ((2, 300), *((2, 5, 300),) * 3))
    args = (*given, norm, y, 600, 5, 300, 1, 1.0)
    kernels.elementwise("normalize", "normalize_forward", 600, args, per_thread=1)
    slopes = (given[0], norm, given[1], bench.up(dy), dx, share, 600, 5, 300, 1)
    kernels.elementwise("normalize", "normalize_backward", 600, slopes, per_thread=1)
    return bench.down(norm, y, dx, share)


def _losses(bench: Bench) -> list[HostArray]:
    """A loss and its gradient by a kernel of layers; a backend without them uses NumPy."""
    x, t, kernels = _numbers(1027), np.abs(_numbers(1027, seed=1)) / 4, bench.backend.kernels
    if kernels is None:
        slope = np.clip(x - t, -1, 1)
        size = np.abs(x - t)
        smooth = np.where(size < 1, size * size / 2, size - 0.5)
        return [np.logaddexp(0, x) - x * t, 1 / (1 + np.exp(-x)) - t, smooth, slope, -slope]
    given = [bench.up(array) for array in (x, t)]
    terms, ones, dx, smooth, da, db = results = [bench.new((1027,)) for _ in range(6)]
    launch = kernels.elementwise
    launch("losses", "sigmoid_loss_terms", 1027, (*given, terms, ones, 1027, 0, 0))
    launch("losses", "sigmoid_loss_slopes", 1027, (*given, ones, dx, 1027, 1.0))
    launch("losses", "smooth_l1_terms", 1027, (*given, None, smooth, 1027, 1.0))
    args = (*given, None, None, da, db, 1027, 1.0, 1.0)
    launch("losses", "smooth_l1_slopes", 1027, args)
    results.remove(ones)
    return bench.down(*results)


def _rows(bench: Bench) -> list[HostArray]:
    """Sums, normalisation and factors of rows; a backend without these kernels uses NumPy."""
    x, dy, kernels = _numbers(5, 300), _numbers(5, 300, seed=1), bench.backend.kernels
    if kernels is None:
        sums = x.sum(axis=1)
        centred = x - x.mean(axis=1, keepdims=True)
        divisor = np.sqrt(np.square(centred).mean(axis=1, keepdims=True)) + np.float32(1)
        y = centred / divisor
        slope = dy - dy.mean(axis=1, keepdims=True) - y * (dy * y).mean(axis=1, keepdims=True)
        ones = np.repeat(sums[:, None], 300, axis=1)
        return [sums, y, slope / divisor, sums[:, None] * x + dy, ones]
    given = [bench.up(array) for array in (x, dy)]
    sums, divisor = bench.new((5,)), bench.new((5,))
    y, dx, scaled, spread = (bench.new((5, 300)) for _ in range(4))
    kernels.run("rows", "reduce_rows", 5, (given[0], None, sums, 300, 0, 1.0))
    kernels.run("rows", "mvn_forward", 5, (given[0], y, divisor, 300, 1.0))
    kernels.run("rows", "mvn_backward", 5, (y, given[1], divisor, dx, 300))
    kernels.elementwise("rows", "scale_rows", 1500, (sums, *given, scaled, 1500, 300))
    backward = (given[0], sums, spread, 1500, 300, 0, 1.0)
    kernels.elementwise("rows", "reduce_rows_backward", 1500, backward)
    return bench.down(sums, y, dx, scaled, spread)


def _augment(bench: Bench) -> list[HostArray]:
    pixels = np.random.default_rng(5).integers(0, 256, (2, 3, 6, 7), np.uint8)
    y = bench.new((2, 3, 6, 7))
    bench.backend.input_batch(pixels, _numbers(2, 3), 0.5, y)
    return bench.down(y)


_SQUARE = ConvGeometry(2, 33, 10, 9, 34, (3, 3), (1, 1))
_WIDE = ConvGeometry(1, 9, 6, 7, 66, (2, 3), (0, 1), dilation=(1, 2))
KNOWN: dict[str, Work] = {
    TENSOR_BF16: _convolution(_SQUARE, _WIDE),
    TENSOR_TF32: _convolution(_SQUARE, _WIDE),
    WINOGRAD_4: _convolution(_SQUARE),
    WINOGRAD_2: _convolution(_SQUARE),
    IMPLICIT: _convolution(
        _SQUARE, _WIDE, ConvGeometry(2, 4, 7, 8, 6, (3, 2), (2, 1), (2, 3), (1, 2), 2)
    ),
    POOL_BY_HALF: _max_pool(PoolGeometry(2, 3, 6, 8, (2, 2), (2, 2))),
    "max_pool": _max_pool(PoolGeometry(2, 2, 7, 6, (3, 2), (2, 2), (1, 0))),
    LRN_OF_5: _lrn(5),
    "lrn": _lrn(3),
    "augment": _augment,
    "ave_pool": _ave_pool,
    "bias": _bias,
    "dropout": _dropout,
    "functions": _functions,
    "gemm": _products,
    "losses": _losses,
    "normalize": _normalize,
    "pointwise": _channels,
    "relu": _relu,
    "rows": _rows,
    "sgd_update": _sgd,
    "softmax": _softmax,
    "softmax_loss": _softmax_loss,
    "solver_updates": _updates,
    "strided": _strided,
    "sums": _sums,
    "vectors": _vectors,
}
ALGORITHMS = frozenset((IMPLICIT, WINOGRAD_2, WINOGRAD_4, TENSOR_TF32, TENSOR_BF16))


def next_rung(rung: str) -> str | None:
    """The rung that replaces this one; None for the last of its ladder."""
    for ladder in LADDERS:
        if rung in ladder[:-1]:
            return ladder[ladder.index(rung) + 1]
    return None
