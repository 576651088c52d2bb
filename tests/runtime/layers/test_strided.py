"""Copies with any strides, on the host and on the emulator, against NumPy's own views."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runtime.backend.registry import create_backend
from runtime.core.synced_memory import SyncedMemory
from runtime.layers.strided import StridedCopy, Strides

BACKENDS = ["cpu", *(["emu"] if shutil.which("g++") else [])]
SHAPES = [
    (5,),
    (4, 3),
    (2, 1, 5),
    (2, 3, 4, 2),
    (2, 2, 3, 2, 2),
    (2, 3, 2, 1, 2, 2, 3, 2),
    (3, 0, 2),
]


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: Any = create_backend(request.param)
    yield made
    if not made.shares_host_memory:
        made.driver.close()


def memory(backend: Any, values: Any) -> SyncedMemory:
    made = SyncedMemory(backend)
    made.reshape(values.shape)
    made.mutable_host()[...] = values
    return made


def numbers(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_transpositions_and_mirrors(backend: Any, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = [int(axis) for axis in rng.permutation(len(shape))]
    axes = [axis for axis in range(len(shape)) if rng.random() < 0.5]
    x = numbers(shape)
    expected = np.flip(x, axes).transpose(order)
    source = Strides.of(shape).mirrored(shape, axes).permuted(order)
    y = memory(backend, np.full(expected.shape, np.nan, np.float32))
    copy = StridedCopy(expected.shape, source, Strides.of(expected.shape))
    copy.run(backend, memory(backend, x), y)
    np.testing.assert_array_equal(y.host(), expected)


@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
def test_a_window_and_zeros_around_it(backend: Any, shape: tuple[int, ...]) -> None:
    larger = tuple(size + 3 for size in shape[:3]) + shape[3:]
    starts = [2] * len(shape[:3]) + [0] * len(shape[3:])
    window = tuple(slice(start, start + size) for start, size in zip(starts, shape))
    x, places = numbers(larger), Strides.of(larger).window(starts)
    part = memory(backend, np.full(shape, np.nan, np.float32))
    StridedCopy(shape, places, Strides.of(shape)).run(backend, memory(backend, x), part)
    np.testing.assert_array_equal(part.host(), x[window])
    y = memory(backend, np.full(larger, np.nan, np.float32))
    StridedCopy(shape, Strides.of(shape), places).run(backend, part, y, whole=False)
    expected = np.zeros(larger, np.float32)
    expected[window] = x[window]
    np.testing.assert_array_equal(y.host(), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sums_of_repeated_elements(backend: Any, axis: int) -> None:
    shape = (3, 4, 5)
    x = np.arange(60, dtype=np.float32).reshape(shape)
    steps = list(Strides.of(shape).steps)
    repeat = steps.pop(axis)
    rest = tuple(size for i, size in enumerate(shape) if i != axis)
    y = memory(backend, np.full(rest, np.nan, np.float32))
    copy = StridedCopy(rest, Strides(0, tuple(steps)), Strides.of(rest), shape[axis], repeat)
    copy.run(backend, memory(backend, x), y)
    np.testing.assert_array_equal(y.host(), x.sum(axis=axis))


def test_dense_copies_are_one_axis(backend: Any) -> None:
    if backend.shares_host_memory:
        pytest.skip("the host needs no merging")
    shape = (2, 1, 3, 2, 2, 1, 2, 3, 2)
    launches = backend.launches
    y = memory(backend, np.zeros(shape, np.float32))
    x = numbers(shape)
    StridedCopy(shape, Strides.of(shape), Strides.of(shape)).run(backend, memory(backend, x), y)
    assert backend.launches == launches + 1
    np.testing.assert_array_equal(y.host(), x)
