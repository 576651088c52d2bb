"""Where a layer of Caffe has a rule of its own: ties, old fields, shapes, limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.net import Net


def build(layer: str, *shapes: Sequence[int], tops: int = 1, phase: int = 0) -> Net:
    """A net of one layer in float64."""
    lines = ["force_backward: true"]
    for i, shape in enumerate(shapes):
        dims = " ".join(f"dim: {d}" for d in shape)
        lines.append(
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    wires = "".join(f' bottom: "b{i}"' for i in range(len(shapes)))
    wires += "".join(f' top: "t{i}"' for i in range(tops))
    lines.append(f'layer {{ name: "x"{wires} {layer} }}')
    param = text.parse("\n".join(lines), proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    return Net(param, phase, create_backend("cpu", dtype=np.float64), context)


def give(net: Net, *values: Any) -> None:
    for i, value in enumerate(values):
        net.blobs[f"b{i}"].data.mutable_host()[...] = value


def test_a_tied_maximum_sends_its_gradient_to_one_bottom() -> None:
    """Of the first two the second wins; a later one must be larger."""
    with build(
        'type: "Eltwise" eltwise_param { operation: MAX coeff: 1 coeff: 2 coeff: 3 }',
        (3,),
        (3,),
        (3,),
    ) as net:
        give(net, [1, 5, 1], [1, 4, 0], [1, 5, 2])
        net.forward()
        np.testing.assert_array_equal(net.blobs["t0"].data.host(), [1, 5, 2])
        net.blobs["t0"].diff.mutable_host()[...] = 1
        net.backward()
        found = [net.blobs[f"b{i}"].diff.host().tolist() for i in range(3)]
        assert found == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_old_dimensions_of_dummy_data_are_given_once_or_once_per_top() -> None:
    old = "num: 5 channels: 2 channels: 3 height: 1 width: 4 width: 6"
    with build(f'type: "DummyData" dummy_data_param {{ {old} }}', tops=2) as net:
        assert [net.blobs[t].shape for t in ("t0", "t1")] == [(5, 2, 1, 4), (5, 3, 1, 6)]
    with pytest.raises(ProtoError, match="expected 1 or 2 height entries, got 0"):
        build('type: "DummyData" dummy_data_param { num: 5 channels: 2 width: 1 }', tops=2)
    with pytest.raises(ProtoError, match="both shape and num, channels, height, width"):
        build(f'type: "DummyData" dummy_data_param {{ {old} shape {{ dim: 2 }} }}', tops=2)


@pytest.mark.parametrize(
    ("layer", "complaint"),
    [
        ('"Exp" exp_param { shift: 1000 }', "base -1 to the scale 1 or shift 1000 is not finite"),
        ('"Exp" exp_param { base: 10 shift: 3e38 }', "base 10 to the scale 1 or shift 3e.38 is no"),
        ('"Exp" exp_param { base: 3e38 scale: 3e38 }', "base 3e.38 to the scale 3e.38 or shift 0"),
        ('"Power" power_param { scale: 0 power: -1 }', "shift 0 to the power -1 is not finite"),
        ('"Power" power_param { scale: 0 shift: -1 power: 0.5 }', "shift -1 to the power 0.5 is n"),
        ('"Power" power_param { scale: 0 shift: 2 power: 999 }', "shift 2 to the power 999 is not"),
    ],
)
def test_constants_that_overflow_are_refused(layer: str, complaint: str) -> None:
    with pytest.raises(ProtoError, match=complaint):
        build(f"type: {layer}", (2, 3))


@pytest.mark.parametrize(
    ("layer", "shape", "complaint"),
    [
        ('"InnerProduct" inner_product_param { num_output: 3 }', (2, 3), "cannot work in place; g"),
        (
            '"Convolution" convolution_param { num_output: 2 kernel_size: 1 }',
            (1, 2, 3, 3),
            "cannot",
        ),
        (
            '"Deconvolution" convolution_param { num_output: 2 kernel_size: 1 }',
            (1, 2, 3, 3),
            "cann",
        ),
        ('"Pooling" pooling_param { kernel_size: 1 }', (1, 2, 3, 3), "cannot work in place; give"),
        ('"Flatten"', (2, 3), "cannot work in place; give its top another name"),
        ('"Reshape" reshape_param { shape { dim: 2 dim: 3 } }', (2, 3), "cannot work in place; gi"),
        (
            '"Tile" tile_param { tiles: 2 }',
            (2, 3),
            r"cannot work in place, as blob 'b0' of shape \(2, 3\) would become \(2, 6\); give",
        ),
        ('"Reduction"', (2, 3), r"blob 'b0' of shape \(2, 3\) would become \(\)"),
        ('"SPP" spp_param { pyramid_height: 2 }', (1, 2, 4, 4), r"would become \(1, 10\)"),
    ],
)
def test_layers_that_do_not_work_in_place(
    layer: str, shape: tuple[int, ...], complaint: str
) -> None:
    dims = " ".join(f"dim: {d}" for d in shape)
    param = text.parse(
        f'layer {{ name: "in" type: "Input" top: "b0" input_param {{ shape {{ {dims} }} }} }} '
        f'layer {{ name: "x" type: {layer} bottom: "b0" top: "b0" }}',
        proto.NetParameter,
    )
    with pytest.raises((ProtoError, ShapeError), match=complaint):
        Net(param, 0, create_backend("cpu"))


@pytest.mark.parametrize("kind", ["HingeLoss", "MultinomialLogisticLoss"])
def test_these_losses_have_a_label_for_each_sample(kind: str) -> None:
    for labels in ((2,), (2, 1, 1, 1)):
        build(f'type: "{kind}"', (2, 3), labels).close()
    with pytest.raises(ShapeError, match="expected one label for each of 2 samples, got labels of"):
        build(f'type: "{kind}"', (2, 3), (2, 3))


def test_constants_as_caffe_has_them() -> None:
    for layer, value in (
        ('"Exp" exp_param { base: 10 shift: -400 }', 0.0),
        ('"Power" power_param { scale: 0 shift: 3 power: 2 }', 9.0),
        ('"Power" power_param { scale: 0 shift: -2 power: 3 }', -8.0),
        ('"Power" power_param { power: 0 scale: 5 }', 1.0),
        ('"Power" power_param { power: 0 scale: 0 }', 1.0),
    ):
        with build(f"type: {layer}", (2, 3)) as net:
            give(net, np.ones((2, 3)))
            net.forward()
            np.testing.assert_array_equal(net.blobs["t0"].data.host(), value)
            net.backward()
            np.testing.assert_array_equal(net.blobs["b0"].diff.host(), 0)


@pytest.mark.parametrize("by_caffe", [False, True])
def test_dropping_nothing(by_caffe: bool) -> None:
    with build('type: "Dropout" dropout_param { dropout_ratio: 0 }', (4, 50)) as net:
        net.context.caffe_dropout = by_caffe
        x = np.random.default_rng(0).uniform(-1, 1, (4, 50))
        give(net, x)
        net.forward()
        np.testing.assert_array_equal(net.blobs["t0"].data.host(), x)
    with pytest.raises(ProtoError, match="expected at least 0, below 1"):
        build('type: "Dropout" dropout_param { dropout_ratio: 1 }', (4, 50))


@pytest.mark.parametrize(
    ("layer", "shape", "top"),
    [
        ('type: "MVN"', (2, 3), (2, 3, 1, 1)),
        ('type: "MVN" mvn_param { across_channels: true }', (2, 3, 4), (2, 3, 4, 1)),
        ('type: "SPP" spp_param { pyramid_height: 1 }', (2, 3, 5, 4), (2, 3, 1, 1)),
    ],
)
def test_shapes_are_caffes(layer: str, shape: tuple[int, ...], top: tuple[int, ...]) -> None:
    with build(layer, shape) as net:
        give(net, np.random.default_rng(1).uniform(-1, 1, shape))
        net.forward()
        assert net.blobs["t0"].shape == top
        net.blobs["t0"].diff.mutable_host()[...] = 1
        net.backward()
        assert np.isfinite(net.blobs["b0"].diff.host()).all()


def test_one_level_of_a_pyramid_is_the_plane() -> None:
    with build('type: "SPP" spp_param { pyramid_height: 1 pool: AVE }', (2, 3, 5, 4)) as net:
        x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 5, 4))
        give(net, x)
        net.forward()
        np.testing.assert_allclose(net.blobs["t0"].data.host()[..., 0, 0], x.mean(axis=(2, 3)))
        net.blobs["t0"].diff.mutable_host()[...] = 1
        net.backward()
        np.testing.assert_allclose(net.blobs["b0"].diff.host(), 1 / 20)


def test_a_crops_reference_may_have_more_axes() -> None:
    with build('type: "Crop" crop_param { axis: 1 offset: 1 }', (2, 5), (1, 3, 7)) as net:
        assert net.blobs["t0"].shape == (2, 3)
    with pytest.raises(ShapeError, match="expected a reference with as many axes as the input"):
        build('type: "Crop" crop_param { axis: 1 }', (2, 5, 4), (1, 3))


def test_swish_in_place_keeps_what_its_gradient_needs() -> None:
    x, seed = np.linspace(-2, 2, 9), np.linspace(1, 2, 9)
    slopes = []
    for in_place in (False, True):
        with build('type: "Swish" swish_param { beta: 1.5 }', (9,)) as net:
            if in_place:
                net.tops[-1][0] = net.blobs["t0"] = net.blobs["b0"]
            give(net, x)
            net.forward()
            net.blobs["t0"].diff.mutable_host()[...] = seed
            net.backward()
            slopes.append(net.blobs["b0"].diff.host().copy())
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=1e-12)
