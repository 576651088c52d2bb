"""Every layer on bottoms of other shapes, also with a dimension of 0: a result or a typed error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from prototxt_gen.errors import VerydeepError
from tests.conformance.layer_case import Case, Shape
from tests.conformance.test_layers import CASES, build

CHANGES: list[Callable[[int], int]] = [lambda d: 0, lambda d: 1, lambda d: d + 1, lambda d: 2 * d]
WARNINGS = pytest.mark.filterwarnings("ignore::RuntimeWarning")
"""The inputs are drawn for shapes of their own: logarithms of negative numbers and their like."""


def shapes_like(shapes: Sequence[Shape]) -> Iterator[list[Shape]]:
    """Each dimension changed in one bottom, and in all of them; axes left out and added."""
    for change in CHANGES:
        for bottom, axis in ((b, a) for b, shape in enumerate(shapes) for a in range(len(shape))):
            yield [_changed(s, axis, change) if i == bottom else s for i, s in enumerate(shapes)]
        for axis in range(max(map(len, shapes), default=0)):
            yield [_changed(shape, axis, change) for shape in shapes]
    for axes in range(max(map(len, shapes), default=0)):
        yield [shape[:axes] for shape in shapes]
        yield [shapes[0][:axes], *shapes[1:]]
    yield [(*shape, 1) for shape in shapes]
    yield [(0,) * len(shape) for shape in shapes]


def _changed(shape: Shape, axis: int, change: Callable[[int], int]) -> Shape:
    return tuple(change(d) if i == axis else d for i, d in enumerate(shape))


@WARNINGS
@pytest.mark.parametrize("case", CASES, ids=str)
def test_dimensions_of_0_are_computed_or_refused(case: Case) -> None:
    for axis in range(max(map(len, case.bottoms), default=0)):
        _when_built(case, [_changed(tuple(s), axis, lambda d: 0) for s in case.bottoms], case.phase)
        _when_built(case, [tuple(shape)[:axis] for shape in case.bottoms], case.phase)


@WARNINGS
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_other_shapes_are_computed_or_refused(case: Case) -> None:
    for shapes in shapes_like([tuple(shape) for shape in case.bottoms]):
        for phase in (0, 1):
            _when_built(case, shapes, phase)
            _when_reshaped(case, shapes, phase)


def _when_built(case: Case, shapes: list[Shape], phase: int) -> None:
    other = Case(case.layer, shapes, tops=case.tops, phase=phase)
    try:
        with build(other) as net:
            net.forward()
            net.backward()
    except VerydeepError as error:
        assert "layer 'x'" in str(error) or "blob" in str(error)


def _when_reshaped(case: Case, shapes: list[Shape], phase: int) -> None:
    same = Case(case.layer, case.bottoms, tops=case.tops, phase=phase, given=case.given)
    with build(same) as net:
        try:
            for i, shape in enumerate(shapes):
                net.blobs[f"b{i}"].reshape(shape)
                net.blobs[f"b{i}"].data.mutable_host()[...] = np.ones(shape)
            net.forward()
            net.backward()
        except VerydeepError as error:
            assert "layer 'x'" in str(error) or "blob" in str(error)


def test_a_filter_that_keeps_nothing_feeds_layers_that_work_on_samples() -> None:
    """The batch behind it is empty: no output, no gradient, a loss of 0."""
    from prototxt_gen import proto, text
    from runtime.backend.registry import create_backend
    from runtime.net import Net

    param = text.parse(
        """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [2, 3, 6, 6] } } }
        layer { name: "in1" type: "Input" top: "y" input_param { shape { dim: 2 } } }
        layer { name: "in2" type: "Input" top: "keep" input_param { shape { dim: 2 } } }
        layer { name: "filter" type: "Filter" bottom: "x" bottom: "y" bottom: "keep"
          top: "fx" top: "fy" }
        layer { name: "conv" type: "Convolution" bottom: "fx" top: "conv"
          convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" }
        layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool"
          pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
        layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
          inner_product_param { num_output: 3 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "fy" top: "loss" }
        """,
        proto.NetParameter,
    )
    with Net(param, proto.TRAIN, create_backend("cpu")) as net:
        net.blobs["keep"].data.mutable_host()[...] = 1
        assert net.forward() > 0
        net.blobs["keep"].data.mutable_host()[...] = 0
        assert net.forward() == 0
        net.clear_param_diffs()
        net.backward()
        assert net.blobs["ip"].shape == (0, 3)
        assert not any(blob.diff.host().any() for blob in net.params.learnable)
