"""Blobs: shapes, axes, and sharing."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.backend.base import Layout
from runtime.backend.cpu.backend import CpuBackend
from runtime.core.blob import Blob


@pytest.fixture
def backend() -> CpuBackend:
    return CpuBackend(threads=1)


def test_a_new_blob_reads_as_zeros_in_data_and_diff(backend: CpuBackend) -> None:
    blob = Blob(backend, (2, 3), "b")
    np.testing.assert_array_equal(blob.data.host(), np.zeros((2, 3)))
    np.testing.assert_array_equal(blob.diff.host(), np.zeros((2, 3)))


def test_counts_axes_and_layouts(backend: CpuBackend) -> None:
    blob = Blob(backend, (2, 3, 4, 5), "b")
    assert blob.num_axes == 4
    assert (blob.count(), blob.count(1), blob.count(1, 3), blob.count(4)) == (120, 60, 12, 1)
    assert (blob.canonical_axis(-1), blob.canonical_axis(0)) == (3, 0)
    assert blob.layout(1) == Layout(2, 3, 20)
    assert blob.layout(-1) == Layout(24, 5, 1)
    assert repr(blob) == "Blob('b', (2, 3, 4, 5))"


@pytest.mark.parametrize("axis", [4, -5])
def test_an_axis_out_of_range(backend: CpuBackend, axis: int) -> None:
    with pytest.raises(ShapeError, match=rf"layer 'x': axis {axis} is out of range; expected -4 "):
        Blob(backend, (2, 3, 4, 5)).canonical_axis(axis, "layer 'x'")


def test_reshaping_keeps_memory_while_it_is_large_enough(backend: CpuBackend) -> None:
    blob = Blob(backend, (4, 3))
    blob.data.mutable_host()[...] = np.arange(12.0).reshape(4, 3)
    storage = blob.data.storage
    blob.reshape((2, 3))
    blob.reshape((3, 4))
    assert blob.data.storage is storage
    np.testing.assert_array_equal(blob.data.host(), np.arange(12.0).reshape(3, 4))
    blob.reshape((13,))
    assert blob.data.storage is not storage


def test_reshape_like_takes_the_shape_alone(backend: CpuBackend) -> None:
    blob, other = Blob(backend, (1,)), Blob(backend, (2, 5))
    blob.reshape_like(other)
    assert blob.shape == (2, 5)
    assert blob.data.storage is not other.data.storage


def test_a_scalar_has_no_axes_and_one_element(backend: CpuBackend) -> None:
    blob = Blob(backend, ())
    assert (blob.shape, blob.num_axes, blob.count()) == ((), 0, 1)
    assert blob.data.host().shape == ()


def test_more_axes_than_caffe_has(backend: CpuBackend) -> None:
    blob = Blob(backend, (1,) * 32, "b")
    with pytest.raises(ShapeError, match="blob 'b': cannot take 33 axes; expected at most 32"):
        blob.reshape((1,) * 33)
    assert blob.num_axes == 32


@pytest.mark.parametrize("shape", [(2, -1), (65536, 32768)])
def test_impossible_shapes(backend: CpuBackend, shape: tuple[int, ...]) -> None:
    blob = Blob(backend, (1,), "b")
    with pytest.raises(ShapeError, match=r"blob 'b': cannot take the shape .* at most 2147483647"):
        blob.reshape(shape)
    assert blob.shape == (1,)


def test_the_largest_shape_is_allowed_and_costs_nothing_yet(backend: CpuBackend) -> None:
    assert Blob(backend, (2**31 - 1,)).count() == 2**31 - 1


def test_shared_data_is_one_memory_in_two_shapes(backend: CpuBackend) -> None:
    one, two = Blob(backend, (2, 3), "one"), Blob(backend, (6,), "two")
    one.share_data(two)
    two.data.mutable_host()[...] = np.arange(6.0)
    np.testing.assert_array_equal(one.data.host(), np.arange(6.0).reshape(2, 3))
    one.diff.mutable_host()[...] = 1.0
    np.testing.assert_array_equal(two.diff.host(), 0.0)
    one.share_diff(two)
    np.testing.assert_array_equal(one.diff.host(), 0.0)


def test_sharing_asks_for_equal_counts(backend: CpuBackend) -> None:
    one, two = Blob(backend, (2, 3), "one"), Blob(backend, (5,), "two")
    for share in (one.share_data, one.share_diff):
        with pytest.raises(
            ShapeError, match=r"blob 'one' \(2, 3\): cannot share memory with 'two'"
        ):
            share(two)


def test_legacy_shapes_have_four_axes(backend: CpuBackend) -> None:
    assert Blob(backend, (7,)).legacy_shape() == (7, 1, 1, 1)
    assert Blob(backend, (2, 3, 4, 5)).legacy_shape() == (2, 3, 4, 5)
    with pytest.raises(ShapeError, match="expected at most 4 axes, got shape"):
        Blob(backend, (1, 2, 3, 4, 5)).legacy_shape()


@pytest.mark.parametrize("shape", [(0, 2**31), (0, 2**30, 2**30), (2, 0, 9223372036854775807)])
def test_shapes_without_elements_have_a_limit(shape: tuple[int, ...]) -> None:
    blob = Blob(CpuBackend(), (1,), "b")
    with pytest.raises(ShapeError, match="cannot take the shape"):
        blob.reshape(shape)
    assert blob.shape == (1,)
    blob.reshape((0, 2**31 - 1))
    assert blob.data.dev().size == 0
