"""SyncedMemory: what is copied, when, and the meaning of its version."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.backend.base import Array, HostArray
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.memory import NumpyMemory
from runtime.core.synced_memory import Head, Storage, SyncedMemory

FLOAT = np.dtype(np.float32)


class FarMemory(NumpyMemory):
    """Memory full of junk when fresh; counts copies."""

    uploads = 0
    downloads = 0

    def empty(self, count: int, dtype: np.dtype) -> Array:  # type: ignore[type-arg]
        return np.full(count, np.nan, dtype)

    def upload(self, host: HostArray, device: Array) -> None:
        self.uploads += 1
        super().upload(host, device)

    def download(self, device: Array, host: HostArray) -> None:
        self.downloads += 1
        super().download(device, host)


class FarBackend(CpuBackend):
    """A device with memory of its own."""

    shares_host_memory = False

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.far = self.memory = FarMemory(self.lanes)

    @property
    def copies(self) -> tuple[int, int]:
        return self.far.uploads, self.far.downloads


@pytest.fixture
def far() -> FarBackend:
    return FarBackend()


def memory(backend: CpuBackend, *shape: int) -> SyncedMemory:
    synced = SyncedMemory(backend)
    synced.reshape(shape)
    return synced


def test_nothing_is_copied_until_the_other_side_asks(far: FarBackend) -> None:
    synced = memory(far, 2, 3)
    synced.mutable_host()[...] = 7.0
    synced.host()
    assert far.copies == (0, 0)
    np.testing.assert_array_equal(synced.dev(), np.full((2, 3), 7.0))
    synced.dev()
    synced.host()
    assert far.copies == (1, 0)


def test_a_write_on_the_device_comes_back_once(far: FarBackend) -> None:
    synced = memory(far, 4)
    synced.mutable_dev()[...] = 3.0
    np.testing.assert_array_equal(synced.host(), 3.0)
    synced.host()
    assert far.copies == (0, 1)
    synced.mutable_host()[...] = 5.0
    np.testing.assert_array_equal(synced.dev(), 5.0)
    assert far.copies == (1, 1)


def test_fresh_memory_is_zero_on_either_side(far: FarBackend) -> None:
    np.testing.assert_array_equal(memory(far, 3).dev(), 0.0)
    np.testing.assert_array_equal(memory(far, 3).host(), 0.0)
    assert far.copies == (0, 0)


def test_heads_go_as_caffes_do(far: FarBackend) -> None:
    synced = memory(far, 3)
    heads = [synced.storage.head]
    for touch in (synced.host, synced.dev, synced.mutable_dev, synced.host, synced.mutable_host):
        touch()
        heads.append(synced.storage.head)
    assert heads == [
        Head.UNINITIALIZED,
        Head.AT_HOST,
        Head.SYNCED,
        Head.AT_DEVICE,
        Head.SYNCED,
        Head.AT_HOST,
    ]


def test_a_backend_on_the_host_has_one_copy() -> None:
    synced = memory(CpuBackend(threads=1), 2, 2)
    synced.mutable_dev()[...] = 4.0
    assert np.shares_memory(synced.host(), synced.dev())
    np.testing.assert_array_equal(synced.host(), 4.0)


def test_the_version_grows_with_writes_and_stays_with_reads(far: FarBackend) -> None:
    synced = memory(far, 3)
    start = synced.version
    synced.host()
    synced.dev()
    assert synced.version == start
    seen = [start]
    for write in (synced.mutable_host, synced.mutable_dev):
        write()
        seen.append(synced.version)
    assert len(set(seen)) == 3


def test_once_exposed_a_version_is_unknown_for_good(far: FarBackend) -> None:
    synced = memory(far, 3)
    kept = synced.exposed_host()
    assert synced.version is None
    synced.dev()
    kept[...] = 2.0
    assert synced.version is None


def test_versions_of_two_storages_never_meet(far: FarBackend) -> None:
    """Or filters derived from one storage would pass for the other's after `share`."""
    one, two = memory(far, 3), memory(far, 3)
    one.mutable_host()
    before = one.version
    two.mutable_host()
    one.share(two)
    assert one.version != before


def test_sharing_views_the_same_bytes_in_the_own_shape(far: FarBackend) -> None:
    one, two = memory(far, 6), memory(far, 2, 3)
    one.share(two)
    two.mutable_dev()[...] = 9.0
    np.testing.assert_array_equal(one.host(), np.full(6, 9.0))


def test_a_storage_can_look_into_a_larger_array(far: FarBackend) -> None:
    flat = far.memory.empty(10, FLOAT)
    part = memory(far, 2, 2)
    part.bind(Storage.around(far, far.memory.view(flat, 3, (4,)), 4, FLOAT))
    part.mutable_host()[...] = 1.0
    part.dev()
    np.testing.assert_array_equal(flat[3:7], 1.0)
    assert np.isnan(flat[[2, 7]]).all()


def test_storage_around_an_array_on_the_host_is_that_array() -> None:
    near = CpuBackend(threads=1)
    flat = near.memory.empty(4, FLOAT)
    part = memory(near, 4)
    part.bind(Storage.around(near, flat, 4, FLOAT))
    part.mutable_host()[...] = 6.0
    np.testing.assert_array_equal(flat, 6.0)


@pytest.mark.parametrize("far_away", [False, True])
def test_cleared_memory_reads_zero_and_is_written_when_read(far_away: bool) -> None:
    backend = FarBackend() if far_away else CpuBackend(threads=1)
    synced = memory(backend, 3)
    assert synced.reads_zero
    for look in (synced.dev, synced.host, synced.mutable_dev, synced.mutable_host):
        synced.mutable_dev()[...] = 7.0
        before = synced.version
        assert not synced.reads_zero
        synced.clear()
        assert synced.reads_zero and synced.version != before
        np.testing.assert_array_equal(look(), 0.0)
        assert not synced.reads_zero
    synced.clear()
    synced.host()
    np.testing.assert_array_equal(synced.dev(), 0.0)


@pytest.mark.parametrize("far_away", [False, True])
def test_who_overwrites_need_not_have_zeros_first(far_away: bool) -> None:
    backend = FarBackend() if far_away else CpuBackend(threads=1)
    synced = memory(backend, 3)
    synced.mutable_dev()[...] = 7.0
    synced.clear()
    array = synced.overwritten_dev()
    np.testing.assert_array_equal(array, 7.0)
    array[...] = 5.0
    assert not synced.reads_zero
    np.testing.assert_array_equal(synced.host(), 5.0)
    np.testing.assert_array_equal(synced.dev(), 5.0)


def test_an_array_that_is_referenced_is_cleared_at_once() -> None:
    synced = memory(CpuBackend(threads=1), 3)
    kept = synced.exposed_host()
    kept[...] = 7.0
    synced.clear()
    np.testing.assert_array_equal(kept, 0.0)
    assert not synced.reads_zero
