"""Small works that together launch every kernel of cuda_kernels/.

Run as a program it does them under a sanitizer, in the environment that this needs; or on a GPU,
for NVIDIA's own checker:

    python -m tests.cuda_kernels.works address
    compute-sanitizer --tool memcheck python -m tests.cuda_kernels.works gpu
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Epilogue, Function, FunctionKind, Layout
from runtime.backend.cuda import open_driver
from runtime.backend.cuda.array import DeviceArray
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.cuda.driver import Argument, Driver, Extent, Kernel

FLOAT = np.dtype(np.float32)
Host = np.ndarray[Any, Any]
Work = Callable[[CudaBackend], list[Host]]


class Recorder:
    """A driver that remembers which kernels it launched; everything else is the driver's own."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.launched: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def launch(self, kernel: Kernel, grid: Extent, block: Extent, args: Sequence[Argument]) -> None:
        self.launched.append(kernel.signature.name)
        self._driver.launch(kernel, grid, block, args)


@contextmanager
def emulated(device: str = "emu", **options: Any) -> Iterator[tuple[CudaBackend, Recorder]]:
    """A backend over the emulator (or a GPU), and what records its launches."""
    recorder = Recorder(open_driver(device, **options))
    backend = CudaBackend(recorder)  # type: ignore[arg-type]  # the rest is in __getattr__
    try:
        yield backend, recorder
    finally:
        recorder.close()


def normal(*shape: int) -> Host:
    return np.random.default_rng(list(shape)).standard_normal(shape, np.float32)


def up(backend: CudaBackend, host: Host, shift: int = 0) -> DeviceArray:
    """An array on the device; with a shift it begins so many elements off the alignment."""
    flat = backend.memory.empty(host.size + shift, host.dtype)
    array = backend.memory.view(flat, shift, host.shape)
    backend.memory.upload(np.ascontiguousarray(host), array)
    return array


def junk(backend: CudaBackend, shape: tuple[int, ...], dtype: Any = FLOAT) -> DeviceArray:
    return backend.memory.view(backend.memory.empty(int(np.prod(shape)), np.dtype(dtype)), 0, shape)


def down(backend: CudaBackend, *arrays: DeviceArray) -> list[Host]:
    hosts = [np.empty(array.shape, array.dtype) for array in arrays]
    for array, host in zip(arrays, hosts):
        backend.memory.download(array, host)
    return hosts


def vectors(count: int, shift: int) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        x, y, history = (up(backend, normal(count, i), shift) for i in range(1, 4))
        x, y, history = (a.view(0, (count,)) for a in (x, y, history))
        out = junk(backend, (count,))
        backend.vectors.axpy(0.3, x, y)
        backend.vectors.scal(1.5, y)
        backend.vectors.sub(x, y, out)
        backend.vectors.sgd_update(out, y, history, 0.1, 0.9, 5e-4)
        sums = [backend.vectors.asum(x), backend.vectors.sumsq(y), backend.vectors.dot(x, y)]
        backend.memory.fill(x, 2.0)
        backend.memory.copy_2d(y, x, 3, count // 8, (1, count // 4), (2, count // 3))
        return [*down(backend, x, y, out, history), np.array(sums)]

    return work


def updates(count: int, shift: int) -> Work:
    """Every solver type's update, with the values that were subtracted."""

    def work(backend: CudaBackend) -> list[Host]:
        results = []
        for kernel, histories, constants in (
            ("nesterov", 1, (0.9, 1.9)),
            ("adagrad", 1, (1e-8,)),
            ("rmsprop", 1, (1e-8, 0.99, 0.01)),
            ("adadelta", 2, (1e-6, 0.9, 0.1)),
            ("adam", 2, (1e-8, 0.9, 0.1, 0.999, 0.001)),
        ):
            dw, w, *past = (up(backend, normal(count) + i, shift) for i in range(2 + histories))
            past = [up(backend, normal(count) ** 2, shift) for _ in past]
            settings = (count, 0.1, None, 0.01, 1, 1, *constants)
            args = (dw, w, *past, *settings)
            backend.kernels.elementwise("solver_updates", kernel, count, args)
            results += [dw, w, *past]
        args = (results[1], results[0], count, 0.5)
        backend.kernels.elementwise("solver_updates", "l1_decay", count, args)
        return down(backend, *results)

    return work


def normalize(backend: CudaBackend) -> list[Host]:
    x, dy, scale = (up(backend, normal(*shape)) for shape in ((2, 5, 300), (3, 5, 200), (5,)))
    norm, y, dx, share = (junk(backend, s) for s in ((2, 300), *((2, 5, 300),) * 3))
    args = (x, scale, norm, y, 600, 5, 300, 1, 1e-3)
    backend.kernels.elementwise("normalize", "normalize_forward", 600, args, 1)
    args = (x, norm, scale, dy, dx, share, 600, 5, 300, 1)
    backend.kernels.elementwise("normalize", "normalize_backward", 600, args, 1)
    return down(backend, norm, y, dx, share)


def losses(backend: CudaBackend) -> list[Host]:
    count, launch = 1031, backend.kernels.elementwise
    x, t, inside, outside = (up(backend, normal(count) + i) for i in range(4))
    results = [junk(backend, (count,)) for _ in range(6)]
    terms, counted, dx, smooth, da, db = results
    launch("losses", "sigmoid_loss_terms", count, (x, t, terms, counted, count, 1, 1))
    launch("losses", "sigmoid_loss_slopes", count, (x, t, counted, dx, count, 0.5))
    launch("losses", "smooth_l1_terms", count, (x, t, inside, smooth, count, 4.0))
    launch(
        "losses",
        "smooth_l1_slopes",
        count,
        (x, t, inside, outside, da, db, count, 4.0, 0.5),
    )
    return down(backend, *results)


def rows(backend: CudaBackend) -> list[Host]:
    """Sums of rows and their gradient, normalised rows, and factors of rows."""
    shape, count, launch = (5, 301), 1505, backend.kernels
    x, other = up(backend, normal(*shape)), up(backend, normal(*shape)[::-1])
    sums = [junk(backend, (5,)) for _ in range(4)]
    for operation, out in enumerate(sums):
        launch.run("rows", "reduce_rows", 5, (x, other, out, 301, operation, 0.5))
    results = [junk(backend, shape) for _ in range(4)]
    slopes, y, dx, scaled = results
    divisor = junk(backend, (5,))
    args = (x, sums[0], slopes, count, 301, 2, 0.5)
    launch.elementwise("rows", "reduce_rows_backward", count, args)
    launch.run("rows", "mvn_forward", 5, (x, y, divisor, 301, 1e-3))
    launch.run("rows", "mvn_backward", 5, (y, other, divisor, dx, 301))
    launch.elementwise("rows", "scale_rows", count, (sums[0], x, other, scaled, count, 301))
    return down(backend, *sums, divisor, *results)


def strided(backend: CudaBackend) -> list[Host]:
    """A transposition of a mirrored window, and a sum of repeated elements."""
    x, y = up(backend, normal(3, 40, 29)), junk(backend, (40, 29, 3))
    total = junk(backend, (3, 29))
    kernels, count = backend.kernels, 3 * 40 * 29
    sizes, steps = (1, 1, 1, 40, 29, 3), (0, 0, 0, 87, 3, 1)
    mirrored = (0, 0, 0, 29, -1, 40 * 29)
    kernels.elementwise(
        "strided", "strided", count, (x, y, count, 28, 0, 1, 0, *sizes, *mirrored, *steps)
    )
    sizes, steps, rows = (1, 1, 1, 1, 3, 29), (0, 0, 0, 0, 40 * 29, 1), (0, 0, 0, 0, 29, 1)
    kernels.elementwise(
        "strided", "strided", 87, (x, total, 87, 0, 0, 40, 29, *sizes, *steps, *rows)
    )
    return down(backend, y, total)


def gemm(m: int, n: int, k: int, trans_a: bool, trans_b: bool, beta: float) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        a = up(backend, normal(k, m) if trans_a else normal(m, k))
        b, c = up(backend, normal(n, k) if trans_b else normal(k, n)), up(backend, normal(m, n))
        backend.products.gemm(trans_a, trans_b, 0.7, a, b, beta, c)
        return down(backend, c)

    return work


def convolve(geom: ConvGeometry, algorithm: str) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        plan = dataclasses.replace(backend.conv.plan(geom), algorithm=algorithm)
        x, weight = up(backend, normal(*geom.in_shape)), up(backend, normal(*geom.weight_shape))
        dy, bias = up(backend, normal(*geom.out_shape)), up(backend, normal(geom.k))
        y, dx = junk(backend, geom.out_shape), junk(backend, geom.in_shape)
        dw = up(backend, np.ones(geom.weight_shape, FLOAT))
        backend.conv.forward(plan, x, weight, Epilogue(bias, relu=True), y, 1)
        backend.conv.backward_data(plan, dy, weight, dx, 1)
        backend.conv.backward_weight(plan, x, dy, dw)
        return down(backend, y, dx, dw)

    return work


def neurons(backend: CudaBackend) -> list[Host]:
    x, dy = up(backend, normal(3, 701)), up(backend, normal(3, 701)[::-1])
    y, dx, mask = junk(backend, (3, 701)), junk(backend, (3, 701)), junk(backend, (3, 701), "u1")
    backend.neurons.relu_forward(x, y, 0.1)
    backend.neurons.relu_backward(x, dy, dx, 0.0)
    backend.neurons.dropout_forward(y, y, mask, 0.4, Draw(7, 8, 9))
    backend.neurons.dropout_backward(dx, mask, dx, 0.4)
    return down(backend, y, dx, mask)


def channels(layout: Layout) -> Work:
    """Affine maps and PReLU; the sums of products over a channel."""

    def work(backend: CudaBackend) -> list[Host]:
        shape, ops = (layout.outer, layout.channels, layout.inner), backend.pointwise
        x, dy, y = (
            up(backend, normal(*shape)),
            up(backend, normal(*shape) + 1),
            junk(backend, shape),
        )
        per_channel = [up(backend, normal(layout.channels) + i) for i in range(3)]
        sums, slopes = (up(backend, np.zeros(layout.channels, np.float32)) for _ in range(2))
        ops.affine(layout, x, *per_channel, True, y)
        ops.product_sums(layout, x, dy, sums)
        ops.prelu_backward_slope(layout, x, dy, slopes)
        ops.prelu_backward(layout, x, dy, per_channel[0], dy)
        return down(backend, y, dy, sums, slopes)

    return work


def elements(count: int, shift: int) -> Work:
    """Sums, products and maxima of several arrays."""

    def work(backend: CudaBackend) -> list[Host]:
        ops = backend.pointwise
        inputs = [up(backend, normal(count) + i, shift) for i in range(3)]
        outputs = [junk(backend, (count,)) for _ in range(5)]
        winner = junk(backend, (count,), np.dtype(np.int32))
        ops.eltwise_sum(inputs, [1.0, -2.0, 0.5], True, outputs[0])
        ops.eltwise_sum(inputs[:1], [3.0], False, outputs[1])
        ops.eltwise_product(inputs, outputs[2])
        ops.eltwise_max(inputs, outputs[3], winner)
        ops.eltwise_max_backward(inputs[0], winner, 1, outputs[4])
        return down(backend, *outputs)

    return work


def functions(count: int, shift: int) -> Work:
    """Every function of one number and its derivative; Swish."""

    def work(backend: CudaBackend) -> list[Host]:
        ops = backend.pointwise
        x, dy = (up(backend, normal(count) + i, shift) for i in range(2))
        y, dx = junk(backend, (count,)), junk(backend, (count,))
        results = []
        for kind in FunctionKind:
            function = Function(kind, 0.5, 4.0, 20.0)
            ops.function_forward(function, x, y)
            ops.function_backward(function, x, y, dy, dx)
            results += down(backend, y, dx)
        ops.swish_backward(0.5, x, y, dy, dx)
        return [*results, *down(backend, dx)]

    return work


def bias(layout: Layout) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        y = up(backend, normal(layout.outer, layout.channels, layout.inner))
        values = up(backend, normal(layout.channels))
        backend.products.bias_forward(layout, values, y)
        backend.products.bias_backward(layout, y, values)
        return down(backend, y, values)

    return work


def pool(geom: PoolGeometry) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        x, dy = up(backend, normal(*geom.in_shape)), up(backend, normal(*geom.out_shape))
        y, mean = junk(backend, geom.out_shape), junk(backend, geom.out_shape)
        dx, spread = junk(backend, geom.in_shape), junk(backend, geom.in_shape)
        mask = junk(backend, geom.out_shape, np.int32)
        backend.pool.max_forward(geom, x, y, mask)
        backend.pool.max_backward(geom, dy, mask, dx)
        backend.pool.ave_forward(geom, x, mean)
        backend.pool.ave_backward(geom, dy, spread)
        return down(backend, y, mask, dx, mean, spread)

    return work


def lrn(geom: LRNGeometry) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        shape = (geom.n, geom.c, geom.h, geom.w)
        x, dy = up(backend, normal(*shape)), up(backend, normal(*shape)[::-1])
        scale, y, dx = (junk(backend, shape) for _ in range(3))
        backend.lrn.forward(geom, x, scale, y)
        backend.lrn.backward(geom, x, y, scale, dy, dx)
        return down(backend, scale, y, dx)

    return work


def scores(layout: Layout) -> Work:
    def work(backend: CudaBackend) -> list[Host]:
        shape = (layout.outer, layout.channels, layout.inner)
        x, dx = up(backend, normal(*shape)), junk(backend, shape)
        label = np.arange(layout.outer * layout.inner) % layout.channels
        names = up(backend, label.astype(FLOAT))
        prob, loss, stats, share = (junk(backend, s) for s in (shape, (1,), (1,), (1,)))
        backend.softmax.forward(layout, x, prob)
        backend.softmax.loss_forward(layout, prob, names, 1, None, loss, stats)
        backend.softmax.loss_backward(layout, prob, names, 1, 0.5, stats, dx)
        backend.softmax.backward(layout, prob, dx, x)
        backend.softmax.accuracy(layout, prob, names, None, 2, share)
        return down(backend, prob, loss, stats, dx, x, share)

    return work


def augment(backend: CudaBackend) -> list[Host]:
    rng = np.random.default_rng(5)
    y = junk(backend, (2, 3, 6, 7))
    pixels = rng.integers(0, 256, (2, 3, 6, 7), np.uint8)
    backend.input_batch(pixels, normal(2, 3), 0.5, y)
    return down(backend, y)


WORKS: dict[str, Work] = {
    "vectors": vectors(4099, 0),
    "vectors off the alignment": vectors(1031, 1),
    "updates": updates(1031, 0),
    "updates off the alignment": updates(517, 1),
    "strided copies": strided,
    "rows": rows,
    "losses": losses,
    "normalize": normalize,
    "gemm 64x64, splits": gemm(70, 33, 520, False, True, 1.0),
    "gemm 64x128": gemm(9, 70, 12, True, False, 0.0),
    "gemm 128x128": gemm(130, 131, 17, True, True, 0.5),
    "gemm 128x128, rows along the depth": gemm(129, 70, 19, False, False, 0.0),
    "implicit 128x128": convolve(ConvGeometry(2, 68, 5, 6, 66, (3, 3), (1, 1)), "implicit_gemm"),
    "implicit 64x128": convolve(ConvGeometry(3, 8, 20, 9, 9, (3, 3), (1, 1)), "implicit_gemm"),
    "implicit, strided": convolve(
        ConvGeometry(2, 4, 7, 8, 6, (3, 2), (2, 1), (2, 3), (1, 2), 2), "implicit_gemm"
    ),
    "winograd 4x4": convolve(ConvGeometry(2, 9, 7, 10, 5, (3, 3), (1, 1)), "winograd_4x4"),
    "winograd 2x2": convolve(ConvGeometry(2, 5, 7, 6, 9, (3, 3), (1, 0)), "winograd_2x2"),
    **{
        f"tensor cores, {precision}, {tile}": convolve(geom, f"tensor_{precision}")
        for precision in ("tf32", "bf16")
        for tile, geom in (
            ("64x128", ConvGeometry(2, 5, 6, 7, 9, (3, 3), (1, 1))),
            ("128x128", ConvGeometry(1, 3, 5, 5, 66, (2, 3), (0, 1), dilation=(1, 2))),
        )
    },
    "neurons": neurons,
    "affine maps and PReLU": channels(Layout(3, 5, 409)),
    "affine maps of rows": channels(Layout(19, 70, 1)),
    "sums, products and maxima": elements(4099, 0),
    "sums off the alignment": elements(1031, 1),
    "functions of one number": functions(4099, 0),
    "functions off the alignment": functions(1031, 1),
    "bias of maps": bias(Layout(3, 5, 4099)),
    "bias of rows": bias(Layout(19, 70, 1)),
    "pool": pool(PoolGeometry(2, 2, 7, 6, (3, 2), (2, 2), (1, 0))),
    "pool by half": pool(PoolGeometry(2, 3, 6, 8, (2, 2), (2, 2))),
    "lrn": lrn(LRNGeometry(2, 7, 3, 5, 3, 0.5)),
    "lrn of 5 channels": lrn(LRNGeometry(2, 19, 3, 5, 5, 0.5)),
    "scores of rows": scores(Layout(11, 40, 1)),
    "scores of maps": scores(Layout(2, 5, 40)),
    "augment": augment,
}


def main(where: str) -> int:
    """Do every work; a sanitizer or checker that finds something ends or marks the program."""
    device, options = ("gpu", {}) if where == "gpu" else ("emu", {"order": "shuffled"})
    if device == "emu":
        options["sanitizer"] = where
    with emulated(device, **options) as (backend, _):
        for name, work in WORKS.items():
            work(backend)
            print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
