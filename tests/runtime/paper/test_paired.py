"""Comparisons of two classifiers on the same images."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen.errors import ShapeError
from runtime.paper.paired import compare, exact_p_value, holm


def flags(both: int, only_first: int, only_second: int, neither: int) -> list[np.ndarray]:
    first = [1] * both + [1] * only_first + [0] * only_second + [0] * neither
    second = [1] * both + [0] * only_first + [1] * only_second + [0] * neither
    return [np.array(first, np.bool_), np.array(second, np.bool_)]


def test_the_p_value_is_that_of_a_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for first, second in ((0, 0), (3, 3), (0, 6), (10, 25), (400, 460), (1000, 1200)):
        count = first + second
        expected = stats.binomtest(first, count).pvalue if count else 1.0
        assert exact_p_value(first, second) == pytest.approx(expected, rel=1e-9)
        assert exact_p_value(second, first) == exact_p_value(first, second)


def test_a_comparison_counts_the_images_on_which_the_two_differ() -> None:
    result = compare(*flags(50, 10, 30, 910))
    assert (result.first, result.second) == (0.06, 0.08)
    assert (result.only_first, result.only_second) == (10, 30)
    assert result.difference == pytest.approx(0.02)
    assert result.low < 0.02 < result.high
    assert result.decided
    assert not compare(*flags(50, 10, 12, 928)).decided


def test_the_interval_contains_the_difference_in_95_percent_of_samples() -> None:
    rng = np.random.default_rng(0)
    probabilities = (0.05, 0.02, 0.03, 0.90)
    inside = 0
    for _ in range(2000):
        result = compare(*flags(*rng.multinomial(1000, probabilities).tolist()))
        inside += result.low <= 0.01 <= result.high
    assert 0.935 <= inside / 2000 <= 0.965


def test_equal_classifiers_are_decided_in_at_most_5_percent_of_samples() -> None:
    rng = np.random.default_rng(1)
    decided = [
        compare(*flags(*rng.multinomial(1000, (0.05, 0.03, 0.03, 0.89)).tolist())).decided
        for _ in range(2000)
    ]
    assert 0.02 < np.mean(decided) < 0.055


def test_holm_multiplies_the_smallest_by_the_number_of_tests() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 4)])
def test_results_of_other_images_are_refused(first: int, second: int) -> None:
    with pytest.raises(ShapeError, match="expected the same images for both"):
        compare(np.zeros(first, np.bool_), np.zeros(second, np.bool_))
