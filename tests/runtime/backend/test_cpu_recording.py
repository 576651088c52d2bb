"""Every op of the compiled kernels is repeated by a program to the same bits, or not at all."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Draw, Epilogue, Function, FunctionKind, Layout
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.native_library import why_not
from runtime.backend.cpu.native_signatures import EltwiseInputs
from tests.runtime.backend.test_op_groups import GROUPS, ops_of

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")

POOL = PoolGeometry(2, 3, 8, 8, (3, 3), (2, 2))
LRN = LRNGeometry(2, 6, 5, 5, 5, 0.1)
LAYOUT = Layout(2, 6, 5)
CONVOLUTIONS = {
    "direct": ConvGeometry(2, 3, 9, 9, 8, (5, 5)),
    "rows": ConvGeometry(2, 3, 9, 9, 8, (3, 3), (1, 1)),
    "winograd": ConvGeometry(2, 64, 8, 8, 64, (3, 3), (1, 1)),
    "grouped": ConvGeometry(2, 4, 9, 9, 8, (3, 3), (1, 1), group=2),
    "depthwise": ConvGeometry(2, 4, 9, 9, 8, (3, 3), (1, 1), (2, 2), group=4),
    "empty": ConvGeometry(0, 3, 9, 9, 8, (3, 3)),
}
# Ops that a program cannot repeat: they compute in NumPy, return a number, allocate, or take
# arguments that differ from pass to pass.
NEVER = {
    *("memory.empty", "vectors.asum", "vectors.sumsq", "vectors.dot"),
    *("neurons.dropout_forward", "softmax.loss_forward", "softmax.loss_backward"),
    "softmax.accuracy",
}
# Ops that do nothing to an array.
NO_CALLS = {"memory.view", "memory.synchronize", "conv.plan"}


class Arrays:
    """The operands of an op, with values that `renew` replaces."""

    def __init__(self) -> None:
        self.floats: list[Any] = []
        self.bytes: list[Any] = []

    def real(self, *shape: int) -> Any:
        self.floats.append(np.zeros(shape, np.float32))
        return self.floats[-1]

    def flags(self, *shape: int) -> Any:
        self.bytes.append(np.zeros(shape, np.uint8))
        return self.bytes[-1]

    def renew(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for array in self.floats:
            array[...] = rng.uniform(0.1, 2.0, array.shape)
        for array in self.bytes:
            array[...] = rng.integers(0, 2, array.shape)

    def state(self) -> list[bytes]:
        return [array.tobytes() for array in (*self.floats, *self.bytes)]


def work_of(name: str, backend: CpuBackend, a: Arrays) -> Callable[[], object]:
    """A call of an op on operands of its own."""
    memory, vectors, products = backend.memory, backend.vectors, backend.products
    x, y, z = a.real(70), a.real(70), a.real(70)
    mask = np.zeros(POOL.out_shape, np.int32)
    small, wide = a.real(*POOL.out_shape), a.real(*POOL.in_shape)
    prob, scores, out = a.real(2, 6, 5), a.real(2, 6, 5), a.real(2, 6, 5)
    one, stats = a.real(1), a.real(1)
    label = np.zeros((2, 5), np.float32)
    blobs = [a.real(LRN.n, LRN.c, LRN.h, LRN.w) for _ in range(5)]
    flags = a.flags(70)
    index, tanh = np.zeros(70, np.int32), Function(FunctionKind.TANH)
    pointwise, inputs, slope = backend.pointwise, [x, y], x[:6]
    left, right, result = a.real(4, 6), a.real(6, 5), a.real(4, 5)
    draw, signed = Draw(1, 2, 3), np.full((2, 6, 5), -0.5, np.float32)
    calls: dict[str, Callable[[], object]] = {
        "memory.empty": lambda: memory.empty(5, np.dtype(np.float32)),
        "memory.view": lambda: memory.view(x, 2, (3, 4)),
        "memory.upload": lambda: memory.upload(x, y),
        "memory.download": lambda: memory.download(x, y),
        "memory.copy": lambda: memory.copy(x, y),
        "memory.copy_2d": lambda: memory.copy_2d(x, y, 5, 4, (1, 9), (2, 7)),
        "memory.fill": lambda: memory.fill(y, 2.5),
        "memory.synchronize": memory.synchronize,
        "vectors.axpy": lambda: vectors.axpy(1.5, x, y),
        "vectors.scal": lambda: vectors.scal(1.5, y),
        "vectors.sub": lambda: vectors.sub(x, y, z),
        "vectors.asum": lambda: vectors.asum(x),
        "vectors.sumsq": lambda: vectors.sumsq(x),
        "vectors.dot": lambda: vectors.dot(x, y),
        "vectors.sgd_update": lambda: vectors.sgd_update(x, y, z, 0.1, 0.9, 0.01),
        "products.gemm": lambda: products.gemm(False, False, 0.5, left, right, 0.25, result),
        "products.bias_forward": lambda: products.bias_forward(LAYOUT, x[:6], out),
        "products.bias_backward": lambda: products.bias_backward(LAYOUT, out, x[:6]),
        "neurons.relu_forward": lambda: backend.neurons.relu_forward(x, y, 0.1),
        "neurons.relu_backward": lambda: backend.neurons.relu_backward(x, y, z, 0.1),
        "neurons.dropout_forward": lambda: backend.neurons.dropout_forward(x, y, flags, 0.5, draw),
        "neurons.dropout_backward": lambda: backend.neurons.dropout_backward(y, flags, x, 0.5),
        "pointwise.function_forward": lambda: pointwise.function_forward(tanh, x, z),
        "pointwise.function_backward": lambda: pointwise.function_backward(tanh, x, x, y, z),
        "pointwise.swish_backward": lambda: pointwise.swish_backward(0.5, x, x, y, z),
        "pointwise.affine": lambda: pointwise.affine(LAYOUT, scores, slope, y[:6], None, True, out),
        "pointwise.product_sums": lambda: pointwise.product_sums(LAYOUT, scores, prob, slope),
        "pointwise.eltwise_sum": lambda: pointwise.eltwise_sum(inputs, [0.5, 2.0], False, z),
        "pointwise.eltwise_product": lambda: pointwise.eltwise_product(inputs, z),
        "pointwise.eltwise_max": lambda: pointwise.eltwise_max(inputs, z, index),
        "pointwise.eltwise_max_backward": lambda: pointwise.eltwise_max_backward(x, index, 0, z),
        "pointwise.prelu_forward": lambda: pointwise.prelu_forward(LAYOUT, scores, slope, out),
        "pointwise.prelu_backward": lambda: pointwise.prelu_backward(
            LAYOUT, scores, prob, slope, out
        ),
        "pointwise.prelu_backward_slope": lambda: pointwise.prelu_backward_slope(
            LAYOUT, signed, prob, slope
        ),
        "pool.max_forward": lambda: backend.pool.max_forward(POOL, wide, small, mask),
        "pool.max_backward": lambda: backend.pool.max_backward(POOL, small, mask, wide),
        "pool.ave_forward": lambda: backend.pool.ave_forward(POOL, wide, small),
        "pool.ave_backward": lambda: backend.pool.ave_backward(POOL, small, wide),
        "lrn.forward": lambda: backend.lrn.forward(LRN, *blobs[:3]),
        "lrn.backward": lambda: backend.lrn.backward(LRN, *blobs),
        "softmax.forward": lambda: backend.softmax.forward(LAYOUT, scores, prob),
        "softmax.backward": lambda: backend.softmax.backward(LAYOUT, prob, scores, out),
        "softmax.loss_forward": lambda: backend.softmax.loss_forward(
            LAYOUT, prob, label, None, None, one, stats
        ),
        "softmax.loss_backward": lambda: backend.softmax.loss_backward(
            LAYOUT, prob, label, None, 1.0, stats, out
        ),
        "softmax.accuracy": lambda: backend.softmax.accuracy(LAYOUT, prob, label, None, 1, one),
    }
    return calls[name]


def check(name: str, backend: CpuBackend, arrays: Arrays, work: Callable[[], object]) -> None:
    """Compare a replay on new values with the op on the same values."""
    recorder = backend.recorder
    assert recorder is not None
    arrays.renew(1)
    tape = recorder.record(work)
    if name in NEVER:
        assert not tape.pure
        return
    assert tape.pure and (tape.calls > 0) is (name not in NO_CALLS)
    program = recorder.capture([tape, tape])
    for seed in (2, 3):
        arrays.renew(seed)
        work()
        work()
        expected = arrays.state()
        arrays.renew(seed)
        before = arrays.state()
        recorder.replay(program)
        assert arrays.state() == expected
        assert (expected != before) is (name not in NO_CALLS)


OPS = sorted(
    f"{group}.{op}"
    for group, protocol in GROUPS.items()
    if group != "conv"
    for op in ops_of(protocol)
)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", OPS)
def test_an_op_is_repeated(name: str, precision: str) -> None:
    backend, arrays = CpuBackend(threads=2, precision=precision), Arrays()
    check(name, backend, arrays, work_of(name, backend, arrays))


@pytest.mark.parametrize("which", ["forward", "backward_data", "backward_weight"])
@pytest.mark.parametrize("version", [None, 5])
@pytest.mark.parametrize("geometry", sorted(set(CONVOLUTIONS) - {"empty"}))
def test_a_convolution_is_repeated(geometry: str, version: int | None, which: str) -> None:
    geom = CONVOLUTIONS[geometry]
    backend, a = CpuBackend(threads=2), Arrays()
    plan = backend.conv.plan(geom)
    x, y = a.real(*geom.in_shape), a.real(*geom.out_shape)
    weight, bias = np.random.default_rng(0).random(geom.weight_shape, np.float32), a.real(geom.k)
    gradient = a.real(*geom.weight_shape)
    calls = {
        "forward": lambda: backend.conv.forward(plan, x, weight, Epilogue(bias, True), y, version),
        "backward_data": lambda: backend.conv.backward_data(plan, y, weight, x, version),
        "backward_weight": lambda: backend.conv.backward_weight(plan, x, y, gradient),
    }
    work = calls[which]
    for _ in range(3):  # transformed filters are kept from the second call on
        work()
    check(f"conv.{which}", backend, a, work)


def test_an_empty_convolution_is_repeated() -> None:
    geom = CONVOLUTIONS["empty"]
    backend, a = CpuBackend(threads=2), Arrays()
    plan = backend.conv.plan(geom)
    x, y, weight = a.real(*geom.in_shape), a.real(*geom.out_shape), a.real(*geom.weight_shape)
    recorder = backend.recorder
    assert recorder is not None
    tape = recorder.record(
        lambda: backend.conv.forward(plan, x, weight, Epilogue(None, False), y, None)
    )
    recorder.replay(recorder.capture([tape]))


def test_tapes_differ_where_an_argument_differs() -> None:
    backend = CpuBackend(threads=1)
    recorder = backend.recorder
    assert recorder is not None
    x, y = np.ones(70, np.float32), np.ones(70, np.float32)
    image, small = np.ones(POOL.in_shape, np.float32), np.ones(POOL.out_shape, np.float32)
    other = PoolGeometry(2, 3, 8, 8, (2, 2), (2, 2))
    assert other.out_shape[2] == POOL.out_shape[2]
    works: list[Callable[[], object]] = [
        lambda: backend.vectors.axpy(2.0, x, y),
        lambda: backend.vectors.axpy(3.0, x, y),
        lambda: backend.vectors.axpy(2.0, y, x),
        lambda: backend.vectors.axpy(2.0, x[:5], y[:5]),
        lambda: backend.vectors.sub(x, y, y),
        lambda: backend.pool.ave_forward(POOL, image, small),
        lambda: backend.pool.ave_forward(other, image, small),
        lambda: None,
    ]
    tapes = [recorder.record(work) for work in works]
    for number, work in enumerate(works):
        again = recorder.record(work)
        assert [again == tape for tape in tapes] == [i == number for i in range(len(works))]


def test_many_inputs_are_not_repeated() -> None:
    """Sums, products and maxima of more inputs than a kernel takes compute in NumPy."""
    backend = CpuBackend(threads=1)
    assert backend.recorder is not None
    inputs = [np.full(70, i, np.float32) for i in range(EltwiseInputs.MOST + 1)]
    y, index = np.zeros(70, np.float32), np.zeros(70, np.int32)
    works: list[Callable[[], object]] = [
        lambda: backend.pointwise.eltwise_sum(inputs, [1.0] * len(inputs), False, y),
        lambda: backend.pointwise.eltwise_product(inputs, y),
        lambda: backend.pointwise.eltwise_max(inputs, y, index),
    ]
    assert not any(backend.recorder.record(work).pure for work in works)
    assert (y == len(inputs) - 1).all() and (index == len(inputs) - 1).all()


def test_two_workspaces_at_once_are_not_repeated() -> None:
    backend: Any = CpuBackend(threads=1)
    library = backend.recorder._library

    def nested() -> None:
        with library.workspace(64), library.workspace(64):
            pass

    assert not backend.recorder.record(nested).pure


def test_other_threads_are_not_recorded() -> None:
    backend = CpuBackend(threads=1)
    assert backend.recorder is not None
    x = np.ones(70, np.float32)

    def work() -> None:
        thread = threading.Thread(target=backend.vectors.scal, args=(2.0, x))
        thread.start()
        thread.join()

    tape = backend.recorder.record(work)
    assert (tape.calls, x[0]) == (0, 2.0)


def test_a_program_does_not_write_to_the_workspace_of_another_call() -> None:
    backend: Any = CpuBackend(threads=1)
    library, size = backend.recorder._library, 1 << 20
    a, b, c = (np.ones((96, 96), np.float32) for _ in range(3))
    with library.workspace(size):
        pass
    tape = backend.recorder.record(lambda: backend.products.gemm(0, 0, 1.0, a, b, 0.0, c))
    assert tape.workspace_bytes > 0
    program = backend.recorder.capture([tape])
    with library.workspace(size) as held:
        ctypes.memset(held, 0x55, size)
        c.fill(0)
        backend.recorder.replay(program)
        assert ctypes.string_at(held, size) == b"\x55" * size
    np.testing.assert_array_equal(c, 96)
