"""The oracle itself: known answers, adjoint passes, and a gradient check that can fail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prototxt_gen.geometry import ConvGeometry, LRNGeometry, PoolGeometry
from tests.oracle import conv, lrn, neurons, pool, softmax
from tests.oracle.gradcheck import check_gradient
from tests.oracle.tolerance import assert_close, tolerance


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape)


def test_convolution_by_hand() -> None:
    geom = ConvGeometry(1, 1, 3, 3, 1, (2, 2), (1, 1), (2, 2))
    x = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    weight = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    # Windows start at (-1,-1), (-1,1), (1,-1), (1,1): outside is zero.
    want = [[[[1000.0, 3200.0], [7040.0, 9865.0]]]]
    np.testing.assert_array_equal(conv.forward(geom, x, weight), want)


def test_dilation_and_groups_by_hand() -> None:
    geom = ConvGeometry(1, 2, 1, 3, 2, (1, 2), dilation=(1, 2), group=2)
    x = np.array([[[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]])
    weight = np.array([[[[1.0, 10.0]]], [[[1.0, 100.0]]]])
    assert conv.forward(geom, x, weight).ravel().tolist() == [31.0, 604.0]


@pytest.mark.parametrize(
    "geom",
    [
        ConvGeometry(2, 4, 5, 6, 6, (3, 2), (1, 0), (2, 1), (1, 2), 2),
        ConvGeometry(1, 3, 4, 4, 2, (3, 3), (1, 1)),
    ],
    ids=str,
)
def test_backward_passes_are_adjoint_to_forward(geom: ConvGeometry) -> None:
    x, weight, dy = normal(*geom.in_shape), normal(*geom.weight_shape), normal(*geom.out_shape)
    whole = float((conv.forward(geom, x, weight) * dy).sum())
    assert math.isclose((conv.backward_data(geom, dy, weight) * x).sum(), whole)
    assert math.isclose((conv.backward_weight(geom, x, dy) * weight).sum(), whole)


def test_average_pooling_counts_padding_up_to_the_padded_border() -> None:
    y = pool.ave_forward(PoolGeometry(1, 1, 3, 3, (3, 3), (1, 1), (1, 1)), np.ones((1, 1, 3, 3)))
    assert y[0, 0, 0, 0] == pytest.approx(4 / 9)
    assert y[0, 0, 1, 1] == pytest.approx(1.0)
    last = pool.ave_forward(PoolGeometry(1, 1, 3, 3, (2, 2), (2, 2)), np.ones((1, 1, 3, 3)))
    assert last[0, 0, 1, 1] == 1.0  # one element, divided by 1


def test_max_pooling_ties_and_windows_without_numbers() -> None:
    x = np.array([[[[1.0, 1.0, np.nan, np.nan]]]])
    y, mask = pool.max_forward(PoolGeometry(1, 1, 1, 4, (1, 2), (1, 2)), x)
    assert mask.ravel().tolist() == [0, -1]
    assert y.ravel().tolist() == [1.0, -pool.FLT_MAX]


def test_lrn_gradient_by_differences() -> None:
    geom = LRNGeometry(1, 6, 2, 1, 3, 0.7, 0.75, 1.5)
    x, dy = normal(1, 6, 2, 1), normal(1, 6, 2, 1)

    def objective() -> float:
        return float((lrn.forward(geom, x)[1] * dy).sum())

    check_gradient("x", objective, x, lrn.backward(geom, x, dy))


def test_softmax_gradients_by_differences() -> None:
    x, dy = normal(2, 4, 3), normal(2, 4, 3)
    label = np.array([[0.0, 3.0, 9.0], [1.0, 1.0, 2.0]])

    def weighted() -> float:
        return float((softmax.forward(x) * dy).sum())

    def loss() -> float:
        return 0.5 * softmax.loss_forward(softmax.forward(x), label, 9, None)[0]

    y = softmax.forward(x)
    check_gradient("softmax", weighted, x, softmax.backward(y, dy))
    check_gradient("loss", loss, x, softmax.loss_backward(y, label, 9, 0.5, 5.0))


def test_philox_known_answers() -> None:
    """Random123's published vectors for philox4x32-10."""
    zero = neurons.philox((0, 0, 0, 0), (0, 0))
    assert [f"{word:08x}" for word in zero] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]
    ones = neurons.philox((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2)
    assert [f"{word:08x}" for word in ones] == ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]


def test_a_wrong_gradient_is_found_and_named() -> None:
    x = np.array([1.0, 2.0])

    def objective() -> float:
        return float((x**2).sum())

    check_gradient("x", objective, x, 2 * x)
    with pytest.raises(
        AssertionError, match=r"x: gradient at \(1,\) is 4.0001, differences give 4"
    ):
        check_gradient("x", objective, x, [2.0, 4.0001])
    with pytest.raises(AssertionError, match="x: gradient at"):
        check_gradient("x", objective, x, [2.0, np.nan])
    np.testing.assert_array_equal(x, [1.0, 2.0])


def test_a_kink_is_left_out_but_not_everything() -> None:
    x = np.array([1e-5, -1.0, 1.0])

    def objective() -> float:
        return float(np.maximum(x, 0.0).sum())

    gradient = (x > 0).astype(float)
    with pytest.raises(AssertionError, match="1 of 3 elements are off"):
        check_gradient("x", objective, x, gradient)
    check_gradient("x", objective, x, gradient, kink=0.0)
    x[...] = 0.0
    with pytest.raises(AssertionError, match="every element lies at the kink"):
        check_gradient("x", objective, x, gradient, kink=0.0)


def test_tolerance_grows_with_the_root_of_the_length() -> None:
    assert tolerance(np.float32, 400, 2.0, 3.0) == 120 * np.finfo(np.float32).eps
    assert tolerance(np.float64, 0, 1.0) == np.finfo(np.float64).eps


def test_closeness_sees_errors_shapes_and_nan() -> None:
    want = np.array([1.0, np.nan])
    assert_close("a", np.array([1.0, np.nan], np.float32), want, 1, 1.0)
    with pytest.raises(AssertionError, match="a: off by"):
        assert_close("a", np.array([1.1, np.nan], np.float32), want, 1, 1.0)
    for wrong in ([np.nan, np.nan], [1.0, 1.0]):
        with pytest.raises(AssertionError):
            assert_close("a", np.array(wrong, np.float32), want, 1, 1.0)
    with pytest.raises(AssertionError, match="a: shape"):
        assert_close("a", np.ones(3, np.float32), want, 1, 1.0)
