"""Channel-wise affine maps, PReLU, and element-wise operations of every backend."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.backend.base import Layout
from tests.conformance.device import Device
from tests.conformance.inputs import make
from tests.oracle.tolerance import assert_close, tolerance

LAYOUTS = [
    Layout(1, 1, 1),
    Layout(4, 37, 1),
    Layout(2, 5, 12),
    Layout(3, 1, 7),
    Layout(1, 33, 49),
    Layout(1, 2, 40001),
    Layout(2, 20001, 1),
]
COUNTS = [1, 7, 1000, 40001]


def shape_of(layout: Layout) -> tuple[int, int, int]:
    return layout.outer, layout.channels, layout.inner


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("parts", ["csb", "cs", "sb", "s", "b", ""])
@pytest.mark.parametrize("relu", [False, True])
def test_affine(device: Device, layout: Layout, parts: str, relu: bool) -> None:
    shape = shape_of(layout)
    x, c, s, b = device.cast(
        make("normal", shape), *(make("normal", (layout.channels,), i) for i in (1, 2, 3))
    )
    given = [device.up(v) if name in parts else None for name, v in zip("csb", (c, s, b))]
    want = x.astype(np.float64)
    want = want - c[:, None] if "c" in parts else want
    want = want * s[:, None] if "s" in parts else want
    want = want + b[:, None] if "b" in parts else want
    want = np.maximum(want, 0) if relu else want
    scale = float((np.abs(x).max() + np.abs(c).max()) * (1 + np.abs(s).max()) + np.abs(b).max())
    out, source = device.junk(shape), device.up(x)
    affine = device.backend.pointwise.affine
    affine(layout, source, *given, relu, out)
    got = device.down(out, shape)
    assert_close("y", got, want, 3, scale)
    affine(layout, source, *given, relu, source)
    np.testing.assert_array_equal(device.down(source, shape), got)


def test_affine_subtracts_the_centre_first(device: Device) -> None:
    """Of numbers close to a large centre no digit is lost."""
    layout, shape = Layout(2, 3, 35), (2, 3, 35)
    (x, centre) = device.cast(4096 + make("normal", shape), np.full(3, 4096.0))
    out = device.junk(shape)
    scale = device.up(np.full(3, 0.5))
    device.backend.pointwise.affine(
        layout, device.up(x), device.up(centre), scale, None, False, out
    )
    np.testing.assert_array_equal(device.down(out, shape), (x - centre[:, None]) * 0.5)


def test_an_element_does_not_depend_on_its_position(device: Device) -> None:
    """Vectors and the elements after the last whole vector have the same bits."""
    x, c, s, b = device.cast(*(np.full((1, 1), v) for v in (0.1, 0.37, 1.7, -0.3)))
    pointwise, results = device.backend.pointwise, set()
    for count in (1, 3, 16, 37):
        shape, y = (1, 1, count), device.junk((1, 1, count))
        source = device.up(np.full(shape, x[0, 0]))
        pointwise.affine(Layout(*shape), source, *map(device.up, (c, s, b)), False, y)
        results |= set(device.down(y, shape).ravel().tolist())
        turned = (1, count, 1)
        values = [device.up(np.full(count, v[0, 0])) for v in (c, s, b)]
        pointwise.affine(Layout(*turned), source, *values, False, y)
        results |= set(device.down(y, turned).ravel().tolist())
    assert len(results) == 1


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_product_sums(device: Device, layout: Layout) -> None:
    shape = shape_of(layout)
    x, y, before = device.cast(
        make("normal", shape), make("normal", shape, 1), make("normal", (layout.channels,), 2)
    )
    for below in (False, True):

        def run(below: bool = below) -> list:
            sums, pointwise = device.up(before), device.backend.pointwise
            op = pointwise.prelu_backward_slope if below else pointwise.product_sums
            op(layout, device.up(x), device.up(y), sums)
            return [device.down(sums, before.shape)]

        left = np.minimum(x, 0) if below else x
        want = before + (left.astype(np.float64) * y).sum(axis=(0, 2))
        size = float(max(np.abs(x).max() * np.abs(y).max(), np.abs(before).max()))
        terms = layout.outer * layout.inner + 1
        assert_close("sums", device.twice(run)[0], want, terms, size)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_prelu(device: Device, layout: Layout) -> None:
    shape = shape_of(layout)
    x, dy, slope = device.cast(
        make("ties", shape), make("normal", shape, 1), make("normal", (layout.channels,), 2)
    )
    pointwise, y, dx = device.backend.pointwise, device.junk(shape), device.up(dy)
    pointwise.prelu_forward(layout, device.up(x), device.up(slope), y)
    np.testing.assert_array_equal(device.down(y, shape), np.where(x > 0, x, x * slope[:, None]))
    pointwise.prelu_backward(layout, device.up(x), dx, device.up(slope), dx)
    np.testing.assert_array_equal(device.down(dx, shape), np.where(x > 0, dy, dy * slope[:, None]))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("inputs", [1, 2, 3, 8, 11])
@pytest.mark.parametrize("place", ["apart", "first", "last"])
def test_eltwise(device: Device, count: int, inputs: int, place: str) -> None:
    """The result may lie in any of the inputs."""
    xs = device.cast(*(make("normal", (count,), i) for i in range(inputs)))
    coefficients = [1.0, -0.5, 2.0, 0.25][:inputs] + [1.0] * (inputs - 4)
    exact = [x.astype(np.float64) for x in xs]
    pointwise, size = device.backend.pointwise, max(float(np.abs(x).max()) for x in xs)

    def operands() -> tuple[list, object]:
        arrays = [device.up(x) for x in xs]
        y = {"apart": device.junk((count,)), "first": arrays[0], "last": arrays[-1]}[place]
        return arrays, y

    total = sum(c * x for c, x in zip(coefficients, exact))
    for relu in (False, True):
        arrays, y = operands()
        pointwise.eltwise_sum(arrays, coefficients, relu, y)
        want = np.maximum(total, 0) if relu else total
        assert_close("sum", device.down(y, (count,)), want, inputs, 2 * size)
    arrays, y = operands()
    pointwise.eltwise_product(arrays, y)
    want = np.prod(exact, axis=0)
    allowed = tolerance(device.dtype, inputs, 1.0, 2.0)
    np.testing.assert_allclose(device.down(y, (count,)), want, rtol=allowed, atol=1e-30)
    arrays, y = operands()
    winner = device.junk((count,), np.int32)
    pointwise.eltwise_max(arrays, y, winner)
    np.testing.assert_array_equal(device.down(y, (count,)), np.max(xs, axis=0))
    index = device.down(winner, (count,), np.int32)
    np.testing.assert_array_equal(np.stack(xs)[index, np.arange(count)], np.max(xs, axis=0))


def test_ties_of_a_maximum(device: Device) -> None:
    """Of the first two inputs the second is taken; a later one must be larger."""
    a, b, c = device.cast([1, 2, 1, 0], [1, 1, 1, 1], [1, 2, 2, 1])
    y, winner = device.junk((4,)), device.junk((4,), np.int32)
    pointwise = device.backend.pointwise
    pointwise.eltwise_max([device.up(v) for v in (a, b, c)], y, winner)
    np.testing.assert_array_equal(device.down(y, (4,)), [1, 2, 2, 1])
    np.testing.assert_array_equal(device.down(winner, (4,), np.int32), [1, 0, 2, 1])
    dy, dx = device.up(np.array([5.0, 6, 7, 8])), device.junk((4,))
    pointwise.eltwise_max_backward(dy, winner, 1, dx)
    np.testing.assert_array_equal(device.down(dx, (4,)), [5, 0, 0, 8])


def test_numbers_that_are_not_finite(device: Device) -> None:
    """A NaN stays a NaN, also behind a ReLU."""
    (x,) = device.cast([np.nan, np.inf, -np.inf, -1.0])
    layout, y = Layout(1, 1, 4), device.junk((4,))
    one, pointwise = device.up(np.ones(1)), device.backend.pointwise
    pointwise.affine(layout, device.up(x), None, one, None, True, y)
    np.testing.assert_array_equal(device.down(y, (4,)), [np.nan, np.inf, 0, 0])
    pointwise.eltwise_sum([device.up(x), device.up(np.zeros(4))], [1.0, 1.0], True, y)
    np.testing.assert_array_equal(device.down(y, (4,)), [np.nan, np.inf, 0, 0])
    pointwise.prelu_forward(layout, device.up(x), one, y)
    np.testing.assert_array_equal(device.down(y, (4,)), x)
