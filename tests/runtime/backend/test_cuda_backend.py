"""CudaBackend as a whole, on the emulator: arrays, workspace, kept filters, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from prototxt_gen.errors import DeviceError, ShapeError, UnsupportedError
from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from runtime.backend.base import Epilogue, Layout
from runtime.backend.cuda.backend import CudaBackend
from runtime.backend.registry import create_backend
from runtime.core.synced_memory import SyncedMemory
from tests.cuda_kernels.works import WORKS, down, emulated, junk, normal, up

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

GEOM = ConvGeometry(2, 32, 9, 8, 33, (3, 3), (1, 1))


@pytest.fixture
def backend() -> Iterator[CudaBackend]:
    with emulated() as (made, _):
        yield made


def test_the_registry_opens_it_by_name() -> None:
    made = create_backend("emu", exact=True)
    assert isinstance(made, CudaBackend)
    assert (made.name, made.dtype, made.shares_host_memory) == ("emu", np.float32, False)
    assert made.conv.plan(GEOM).algorithm == "implicit_gemm"
    with pytest.raises(DeviceError, match="order is 'sideways'; expected one of forward"):
        create_backend("emu", order="sideways")


def test_synced_memory_moves_bytes_only_when_it_must(backend: CudaBackend) -> None:
    memory = SyncedMemory(backend)
    memory.reshape((3, 5))
    memory.mutable_host()[...] = 2.0
    backend.vectors.scal(1.5, memory.mutable_dev())
    np.testing.assert_array_equal(memory.host(), 3.0)
    fresh = SyncedMemory(backend, np.dtype(np.int32))
    fresh.reshape((4,))
    fresh.dev()  # fresh memory reads as zeros in every dtype
    np.testing.assert_array_equal(fresh.host(), 0)


def test_arrays_of_another_backend_are_refused(backend: CudaBackend) -> None:
    x = up(backend, normal(8))
    with emulated() as (other, _), pytest.raises(DeviceError) as caught:
        other.vectors.axpy(1.0, x, up(other, normal(8)))
    assert "kernel 'axpy': an array of another backend" in str(caught.value)
    assert "expected one of emu 0; copy it there first" in str(caught.value)
    with emulated() as (other, _):
        for what, call in {
            "upload": lambda: other.memory.upload(normal(8), x),
            "download": lambda: other.memory.download(x, normal(8)),
            "copy": lambda: other.memory.copy(x, x),
            "fill": lambda: other.memory.fill(x, 0.0),
        }.items():
            with pytest.raises(DeviceError, match=f"{what}: an array of another backend"):
                call()
        mine = up(other, normal(8) + 1.0)
        backend.memory.copy(
            mine, x
        )  # the source may be another device's: replicas exchange weights
    np.testing.assert_array_equal(down(backend, x)[0], normal(8) + 1.0)
    with pytest.raises(DeviceError, match="argument 0 'x': expected an array of float32, got arr"):
        backend.vectors.scal(2.0, normal(8))  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_are_refused(backend: CudaBackend) -> None:
    x, y = up(backend, normal(2, 3)), up(backend, normal(7))
    layout, plan = Layout(2, 3, 1), backend.conv.plan(GEOM)
    pool, lrn = PoolGeometry(1, 1, 4, 4, (2, 2), (2, 2)), LRNGeometry(1, 2, 3, 4)
    refused = {
        "axpy": lambda: backend.vectors.axpy(1.0, x, y),
        "sub": lambda: backend.vectors.sub(x, x, y),
        "dot": lambda: backend.vectors.dot(x, y),
        "relu_forward": lambda: backend.neurons.relu_forward(x, y, 0.0),
        "bias_forward": lambda: backend.products.bias_forward(layout, y, x),
        "conv_forward: input": lambda: backend.conv.forward(plan, x, x, Epilogue(), y, None),
        "max_pool_forward": lambda: backend.pool.max_forward(pool, x, y, y),
        "lrn_forward": lambda: backend.lrn.forward(lrn, x, x, x),
        "softmax_forward": lambda: backend.softmax.forward(layout, x, y),
        "sgd_update": lambda: backend.vectors.sgd_update(x, y, x, 0.1, 0.9, 0.0),
    }
    for what, call in refused.items():
        with pytest.raises(
            ShapeError, match=rf"{what}: an array in shape .*; expected .* elements"
        ):
            call()
    with pytest.raises(ShapeError, match=r"gemm: op\(a\) is 3x2, op\(b\) is 2x3 and c is \(2, 3\)"):
        backend.products.gemm(True, False, 1.0, x, x, 0.0, x)
    with pytest.raises(ShapeError, match="upload: 5 elements of float32 and 6 of float32"):
        backend.memory.upload(normal(5), x)
    with pytest.raises(ShapeError, match="view: elements 4 to 7"):
        backend.memory.view(x, 4, (3,))
    with pytest.raises(ShapeError, match=r"copy_2d: 2 runs of 3 elements from 1 with stride 4"):
        backend.memory.copy_2d(y, x, 2, 3, (0, 3), (1, 4))


def test_only_floats_and_zeros_fill(backend: CudaBackend) -> None:
    mask = junk(backend, (5,), np.int32)
    backend.memory.fill(mask, 0.0)
    np.testing.assert_array_equal(down(backend, mask)[0], 0)
    with pytest.raises(
        UnsupportedError, match=r"fill: an array of int32 with 1.0; expected float32"
    ):
        backend.memory.fill(mask, 1.0)
    x = junk(backend, (3,))
    backend.memory.fill(x, -0.0)
    assert np.signbit(down(backend, x)[0]).all()


def test_filters_are_transformed_once_for_a_version_that_stays() -> None:
    with emulated() as (backend, recorder):
        plan = backend.conv.plan(GEOM)
        assert plan.algorithm == "winograd_4x4"
        x, weight = up(backend, normal(*GEOM.in_shape)), up(backend, normal(*GEOM.weight_shape))
        y, transforms, bits = junk(backend, GEOM.out_shape), [], set()
        for version in (1, 1, 1, None, 2, 2, 2):
            recorder.launched.clear()
            backend.conv.forward(plan, x, weight, Epilogue(), y, version)
            transforms.append(recorder.launched.count("winograd_filter_4x4"))
            bits.add(down(backend, y)[0].tobytes())
        # Kept from the second time on: training never sees a version twice.
        assert transforms == [1, 1, 0, 1, 1, 1, 0]
        assert len(bits) == 1


def test_the_plan_has_the_size_of_the_workspace() -> None:
    for geom in (GEOM, ConvGeometry(2, 4, 9, 9, 5, (5, 5))):
        with emulated() as (backend, _):
            plan = backend.conv.plan(geom)
            x, dw = up(backend, normal(*geom.in_shape)), up(backend, normal(*geom.weight_shape))
            backend.conv.backward_weight(plan, x, up(backend, normal(*geom.out_shape)), dw)
            used = backend.device_memory.workspace_bytes
            assert plan.workspace_bytes <= used <= plan.workspace_bytes + 4096


def test_one_workspace_serves_all_works() -> None:
    """Ops of all sizes one after another, as in a net: none depends on the data of another."""
    with emulated() as (backend, _):
        first = [a.tobytes() for work in WORKS.values() for a in work(backend)]
        again = [a.tobytes() for work in reversed(WORKS.values()) for a in work(backend)]
        assert sorted(first) == sorted(again)
        assert backend.device_memory.held_bytes < 64 << 20


def test_ops_can_be_recorded_and_replayed(backend: CudaBackend) -> None:
    """After two passes nothing is allocated, loaded or moved any more."""
    plan, pool = backend.conv.plan(GEOM), PoolGeometry(2, 33, 9, 8, (2, 2), (2, 2))
    x, weight = up(backend, normal(*GEOM.in_shape)), up(backend, normal(*GEOM.weight_shape))
    y, dx = junk(backend, GEOM.out_shape), junk(backend, GEOM.in_shape)
    top, mask = junk(backend, pool.out_shape), junk(backend, pool.out_shape, np.int32)
    db, dw = up(backend, np.zeros(33, np.float32)), up(backend, np.zeros(weight.shape, np.float32))

    def train() -> None:
        backend.memory.fill(dw, 0.0)
        backend.conv.forward(plan, x, weight, Epilogue(relu=True), y, 1)
        backend.pool.max_forward(pool, y, top, mask)
        backend.pool.max_backward(pool, top, mask, y)
        backend.products.bias_backward(Layout(2, 33, 72), y, db)
        backend.conv.backward_weight(plan, x, y, dw)
        backend.conv.backward_data(plan, y, weight, dx, 1)

    train()
    want = down(backend, dx, dw)
    train()
    graph = backend.driver.capture(train)
    backend.memory.upload(normal(*GEOM.in_shape) * 2.0, x)
    backend.driver.replay(graph)
    got = down(backend, dx, dw)
    np.testing.assert_array_equal(got[0], want[0] * 2.0)
    np.testing.assert_array_equal(got[1], want[1] * 4.0)


def test_a_recording_keeps_its_workspace(backend: CudaBackend) -> None:
    """Though the workspace has grown since, and others have got what became free."""
    plan = backend.conv.plan(GEOM)
    x, dy = up(backend, normal(*GEOM.in_shape)), up(backend, normal(*GEOM.out_shape))
    dw = up(backend, np.zeros(GEOM.weight_shape, np.float32))

    def work() -> None:
        backend.conv.backward_weight(plan, x, dy, dw)

    work()
    (want,) = down(backend, dw)
    graph = backend.driver.capture(work)
    size = backend.device_memory.workspace_bytes
    backend.device_memory.workspace(3 * size)
    assert backend.device_memory.workspace_bytes >= 3 * size > 0
    others = [backend.memory.empty(size // 4, np.dtype(np.float32)) for _ in range(3)]
    for other in others:
        backend.memory.fill(other, 7.0)
    backend.memory.fill(dw, 0.0)
    backend.driver.replay(graph)
    np.testing.assert_array_equal(down(backend, dw)[0], want)
    for other in others:
        assert set(down(backend, other)[0].tolist()) == {7.0}
