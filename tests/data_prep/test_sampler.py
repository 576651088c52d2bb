"""Orders of records: complete, repeatable, and asked for at any position."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep.sampler import SequentialSampler, ShuffledSampler, make_sampler, permutation
from prototxt_gen.errors import DataError


def test_sequential_order_wraps_around() -> None:
    sampler = SequentialSampler(3)
    assert [sampler.record_at(position) for position in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_every_epoch_has_every_record_once_in_another_order() -> None:
    sampler = ShuffledSampler(50, seed=4)
    epochs = [[sampler.record_at(50 * e + p) for p in range(50)] for e in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs[0] != list(range(50))


def test_positions_may_be_asked_in_any_order() -> None:
    straight, jumping = ShuffledSampler(20, seed=1), ShuffledSampler(20, seed=1)
    order = np.random.default_rng(0).permutation(200)
    expected = [straight.record_at(position) for position in range(200)]
    found = {position: jumping.record_at(int(position)) for position in order}
    assert [found[position] for position in range(200)] == expected


def test_the_seed_decides() -> None:
    same = permutation(100, 7, 3)
    np.testing.assert_array_equal(same, permutation(100, 7, 3))
    assert (same != permutation(100, 8, 3)).sum() > 80
    assert (same != permutation(100, 7, 4)).sum() > 80


def test_places_are_uniform() -> None:
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[np.arange(5), permutation(5, 0, epoch)] += 1
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)


def test_the_order_is_fixed_for_good() -> None:
    """Resumed runs of other versions must continue with the same records."""
    assert permutation(10, 1, 0).tolist() == [0, 8, 4, 6, 1, 3, 9, 5, 2, 7]


def test_choice() -> None:
    assert isinstance(make_sampler(5, shuffle=False, seed=0), SequentialSampler)
    assert isinstance(make_sampler(5, shuffle=True, seed=0), ShuffledSampler)
    for shuffle in (False, True):
        with pytest.raises(DataError, match="sampler: 0 records; expected at least one"):
            make_sampler(0, shuffle, 0)
