"""Philox against the published known answers, and the properties that other code requires."""

from __future__ import annotations

import numpy as np
import pytest

from data_prep import philox

# Random123's kat_vectors: philox4x32 10 rounds; counter, key, answer.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def _hex(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], dtype=np.uint32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    np.testing.assert_array_equal(philox.philox4x32(_hex(counter), _hex(key)), _hex(answer))


def _scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Write the cipher out with Python integers."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 % 2**32, (p0 >> 32) ^ c3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def test_layout_of_the_counter() -> None:
    seed, stream, high, low = 0x0123456789ABCDEF, 0xFEDCBA98, 77, 5
    drawn = philox.words(seed, stream, high, low, 10)
    key = [0x89ABCDEF, 0x01234567]
    expected = [w for b in range(3) for w in _scalar_philox([b, low, high, stream], key)]
    assert drawn.tolist() == expected[:10]


def test_many_blocks_equal_block_by_block() -> None:
    counters = np.arange(4 * 20_000, dtype=np.uint32).reshape(-1, 4)
    whole = philox.philox4x32(counters, (1, 2))
    for row in (0, 8191, 8192, 19_999):
        np.testing.assert_array_equal(whole[row], philox.philox4x32(counters[row], (1, 2)))


def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in() -> None:
    whole = philox.words(3, 4, 5, np.arange(16), 7)
    parts = [philox.words(3, 4, 5, np.arange(a, a + 4), 7) for a in range(0, 16, 4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    np.testing.assert_array_equal(whole[9], philox.words(3, 4, 5, 9, 7))
    np.testing.assert_array_equal(whole[:, :3], philox.words(3, 4, 5, np.arange(16), 3))


@pytest.mark.parametrize("other", [(4, 4, 5, 9), (3, 5, 5, 9), (3, 4, 6, 9), (3, 4, 5, 10)])
def test_each_part_of_the_name_changes_the_numbers(other: tuple[int, int, int, int]) -> None:
    same = philox.words(3, 4, 5, 9, 64) == philox.words(*other, 64)
    assert same.sum() < 3


def test_integer_mapping() -> None:
    drawn = np.array([0, 2**31, 2**32 - 1], dtype=np.uint32)
    assert philox.to_integers(drawn, 10).tolist() == [0, 5, 9]
    assert philox.to_integers(drawn, np.array([1, 3, 2**32])).tolist() == [0, 1, 2**32 - 1]
    counts = np.bincount(philox.integers(1, 2, 0, np.arange(2000), 5, 8).ravel(), minlength=8)
    assert counts.sum() == 10_000
    assert abs(counts - 1250).max() < 5 * np.sqrt(1250)


def test_normal_numbers_have_the_moments_of_a_normal_distribution() -> None:
    z = philox.to_normal(philox.words(11, 0, 0, np.arange(20_000), 4))[:, :3]
    assert z.shape == (20_000, 3)
    n = z.size
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    assert abs(np.mean(z[:, 0] * z[:, 1])) < 5 / np.sqrt(len(z))


def test_normal_mapping_by_hand() -> None:
    z = philox.to_normal(np.array([2**32 - 1, 0, 2**31, 2**30], dtype=np.uint32))
    radius = np.sqrt(-2 * np.log((2**23 + 1) / 2**24))
    np.testing.assert_allclose(z, [0, 0, 0, radius], atol=1e-15)


def test_streams_have_fixed_numbers() -> None:
    assert philox.stream_of("data") == 0xADF3F363
    assert philox.stream_of("drop6") != philox.stream_of("drop7")
