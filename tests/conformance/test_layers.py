"""Every layer type: what it computes by its definition, and its gradient by differences.

One row a case. The net has an Input for each bottom and the one layer; the definition is an
independent line of numpy in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.context import RunContext
from runtime.net import Net
from runtime.rng import CaffeRandom
from tests.oracle.gradcheck import check_gradient

Array = npt.NDArray[np.float64]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A layer's text without bottoms and tops, its inputs and what it should give."""

    layer: str
    bottoms: Sequence[Shape]
    expect: Callable[..., Any] | None = None
    given: dict[int, npt.ArrayLike] = field(default_factory=dict)
    """Bottoms whose values matter: labels, selectors, indices."""
    low: float = -1.0
    high: float = 1.0
    kink: float | None = None
    gradients: tuple[int, ...] = (0,)
    """The bottoms that have a gradient."""
    tops: int = 1
    phase: int = 0
    distinct: bool = False
    name: str = ""

    def __str__(self) -> str:
        """Name the row."""
        kind = self.layer.split('"')[1]
        return f"{kind}-{self.name}" if self.name else kind


def softmax(x: Array, axis: int = 1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def batch_norm(x: Array) -> Array:
    mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    shape = (1, -1, 1, 1)
    return np.asarray((x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + 1e-5))


def mvn(x: Array, axes: tuple[int, ...], normalize: bool = True) -> Array:
    y = x - x.mean(axis=axes, keepdims=True)
    return (
        np.asarray(y / (np.sqrt((y**2).mean(axis=axes, keepdims=True)) + 1e-9)) if normalize else y
    )


def contrastive(a: Array, b: Array, similar: Array, legacy: bool = False) -> float:
    d2 = ((a - b) ** 2).sum(axis=1)
    apart = np.maximum(2 - d2, 0) if legacy else np.maximum(2 - np.sqrt(d2), 0) ** 2
    return float(np.where(similar > 0, d2, apart).sum() / (2 * len(a)))


def hinge(x: Array, label: Array, power: int) -> float:
    sign = np.ones_like(x)
    sign[np.arange(len(x)), label.astype(int)] = -1
    return float((np.maximum(0, 1 + sign * x) ** power).sum() / len(x))


LABELS = np.array([2, 0, 3])
MATRIX = np.arange(1.0, 17.0).reshape(4, 4) / 7
NCHW = (2, 3, 4, 5)

GAUSSIAN = 'weight_filler { type: "gaussian" } '
BIAS = 'bias_filler { type: "gaussian" } '
XAVIER = 'weight_filler { type: "xavier" } '

CASES = [
    Case('type: "AbsVal"', [NCHW], np.abs, kink=0.0),
    Case('type: "BNLL"', [NCHW], lambda x: np.log(1 + np.exp(x))),
    Case('type: "Sigmoid"', [NCHW], sigmoid),
    Case('type: "TanH"', [NCHW], np.tanh),
    Case('type: "ReLU"', [NCHW], lambda x: np.maximum(x, 0), kink=0.0),
    Case(
        'type: "ReLU" relu_param { negative_slope: 0.25 }',
        [NCHW],
        lambda x: np.where(x > 0, x, 0.25 * x),
        kink=0.0,
        name="leaky",
    ),
    Case(
        'type: "ELU" elu_param { alpha: 0.5 }',
        [NCHW],
        lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)),
        kink=0.0,
    ),
    Case('type: "Swish" swish_param { beta: 1.5 }', [NCHW], lambda x: x * sigmoid(1.5 * x)),
    Case(
        'type: "Clip" clip_param { min: -2 max: 0.5 }',
        [NCHW],
        lambda x: np.clip(x, -2, 0.5),
        kink=0.5,
    ),
    Case(
        'type: "Exp" exp_param { base: 2 scale: 0.5 shift: 0.25 }',
        [NCHW],
        lambda x: 2 ** (0.25 + 0.5 * x),
    ),
    Case('type: "Exp"', [NCHW], np.exp, name="natural"),
    Case(
        'type: "Log" log_param { base: 2 scale: 0.5 shift: 2 }',
        [NCHW],
        lambda x: np.log2(2 + 0.5 * x),
    ),
    Case(
        'type: "Power" power_param { power: 3 scale: 0.5 shift: 2 }',
        [NCHW],
        lambda x: (2 + 0.5 * x) ** 3,
    ),
    Case(
        'type: "Power" power_param { power: 2 scale: 2 shift: 1 }',
        [NCHW],
        lambda x: (1 + 2 * x) ** 2,
        name="square",
    ),
    Case(
        'type: "Power" power_param { scale: 2 shift: 1 }',
        [NCHW],
        lambda x: 1 + 2 * x,
        name="linear",
    ),
    Case(
        'type: "Threshold" threshold_param { threshold: 0.2 }',
        [NCHW],
        lambda x: x > 0.2,
        gradients=(),
    ),
    Case('type: "PReLU"', [NCHW], lambda x: np.where(x > 0, x, 0.25 * x), kink=0.0),
    Case(
        'type: "PReLU" prelu_param { channel_shared: true filler { type: "constant" value: 0.5 } }',
        [NCHW],
        lambda x: np.where(x > 0, x, 0.5 * x),
        kink=0.0,
        name="shared",
    ),
    Case(
        'type: "Eltwise" eltwise_param { operation: PROD }',
        [NCHW] * 3,
        lambda a, b, c: a * b * c,
        gradients=(0, 1, 2),
    ),
    Case(
        'type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }',
        [NCHW] * 2,
        np.multiply,
        gradients=(0, 1),
        low=0.5,
        name="quotient",
    ),
    Case(
        'type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 }',
        [NCHW] * 2,
        lambda a, b: 2 * a - b,
        gradients=(0, 1),
        name="sum",
    ),
    Case(
        'type: "Eltwise" eltwise_param { operation: MAX }',
        [NCHW] * 3,
        lambda a, b, c: np.maximum(np.maximum(a, b), c),
        gradients=(0, 1, 2),
        distinct=True,
        name="max",
    ),
    Case(
        'type: "Concat" concat_param { axis: 1 }',
        [(2, 3, 4), (2, 1, 4)],
        lambda a, b: np.concatenate([a, b], 1),
        gradients=(0, 1),
    ),
    Case(
        'type: "Slice" slice_param { axis: 1 slice_point: 1 slice_point: 3 }',
        [(2, 4, 3)],
        lambda x: [x[:, :1], x[:, 1:3], x[:, 3:]],
        tops=3,
    ),
    Case('type: "Split"', [NCHW], lambda x: [x, x], tops=2),
    Case(
        'type: "Flatten" flatten_param { axis: 1 end_axis: 2 }',
        [NCHW],
        lambda x: x.reshape(2, 12, 5),
    ),
    Case(
        'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } axis: 1 num_axes: 2 }',
        [NCHW],
        lambda x: x.reshape(2, 3, 4, 5),
    ),
    Case(
        'type: "Crop" crop_param { axis: 2 offset: 1 offset: 2 }',
        [(2, 3, 5, 6), (1, 1, 3, 4)],
        lambda x, _: x[:, :, 1:4, 2:6],
    ),
    Case(
        'type: "Tile" tile_param { axis: 1 tiles: 3 }', [(2, 2, 3)], lambda x: np.tile(x, (1, 3, 1))
    ),
    Case(
        'type: "Scale" scale_param { axis: 1 bias_term: true filler { type: "gaussian" } '
        + BIAS
        + "}",
        [NCHW],
    ),
    Case(
        'type: "Scale" scale_param { axis: 1 }',
        [NCHW, (3, 4)],
        lambda x, f: x * f[None, :, :, None],
        gradients=(0, 1),
        name="two",
    ),
    Case('type: "Bias" bias_param { axis: 1 filler { type: "gaussian" } }', [NCHW]),
    Case(
        'type: "Bias" bias_param { axis: 0 }',
        [NCHW, (2, 3)],
        lambda x, b: x + b[:, :, None, None],
        gradients=(0, 1),
        name="two",
    ),
    Case('type: "BatchNorm"', [NCHW], batch_norm),
    Case(
        'type: "BatchNorm" batch_norm_param { use_global_stats: true }',
        [NCHW],
        lambda x: x / np.sqrt(1e-5),
        name="global",
    ),
    Case('type: "MVN"', [NCHW], lambda x: mvn(x, (2, 3))),
    Case(
        'type: "MVN" mvn_param { across_channels: true }',
        [NCHW],
        lambda x: mvn(x, (1, 2, 3)),
        name="across",
    ),
    Case(
        'type: "MVN" mvn_param { normalize_variance: false }',
        [NCHW],
        lambda x: mvn(x, (2, 3), False),
        name="mean",
    ),
    Case(
        'type: "Reduction" reduction_param { axis: 1 coeff: 2 }',
        [NCHW],
        lambda x: 2 * x.sum(axis=(1, 2, 3)),
    ),
    Case(
        'type: "Reduction" reduction_param { operation: ASUM axis: 2 }',
        [NCHW],
        lambda x: np.abs(x).sum(axis=(2, 3)),
        kink=0.0,
        name="asum",
    ),
    Case(
        'type: "Reduction" reduction_param { operation: SUMSQ }',
        [NCHW],
        lambda x: (x**2).sum(),
        name="sumsq",
    ),
    Case(
        'type: "Reduction" reduction_param { operation: MEAN axis: -1 }',
        [NCHW],
        lambda x: x.mean(axis=-1),
        name="mean",
    ),
    Case('type: "Softmax"', [NCHW], softmax),
    Case(
        'type: "Softmax" softmax_param { axis: 3 }', [NCHW], lambda x: softmax(x, 3), name="axis3"
    ),
    Case(
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.6 beta: 0.75 k: 2 }',
        [NCHW],
        lambda x: (
            x
            * (
                2
                + 0.2
                * sum(
                    np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, i : i + 3] for i in range(3)
                )
            )
            ** -0.75
        ),
    ),
    Case(
        'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.9 }',
        [NCHW],
        lambda x: (
            x
            * (
                1
                + 0.1
                * sum(
                    np.pad(x**2, ((0, 0), (0, 0), (1, 1), (1, 1)))[:, :, i : i + 4, j : j + 5]
                    for i in range(3)
                    for j in range(3)
                )
            )
            ** -0.75
        ),
        name="within",
    ),
    Case(
        'type: "InnerProduct" inner_product_param { num_output: 4 ' + XAVIER + BIAS + "}",
        [(3, 2, 3)],
    ),
    Case(
        'type: "InnerProduct" inner_product_param { num_output: 4 axis: 2 transpose: true '
        + XAVIER
        + "}",
        [(3, 2, 5)],
        name="transposed",
    ),
    Case(
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 pad: 1 '
        + GAUSSIAN
        + BIAS
        + "}",
        [(2, 3, 5, 6)],
    ),
    Case(
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 '
        "dilation: 2 group: 2 pad: 2 " + GAUSSIAN + "}",
        [(2, 2, 6, 7)],
        name="group",
    ),
    Case(
        'type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 2 '
        + GAUSSIAN
        + BIAS
        + "}",
        [(2, 2, 3, 4)],
    ),
    Case(
        'type: "Pooling" pooling_param { kernel_size: 3 stride: 2 pad: 1 }',
        [(2, 2, 5, 6)],
        distinct=True,
    ),
    Case(
        'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }',
        [(2, 2, 5, 6)],
        name="ave",
    ),
    Case(
        'type: "SPP" spp_param { pyramid_height: 2 }',
        [(2, 2, 4, 6)],
        distinct=True,
        expect=lambda x: np.concatenate(
            [
                x.max(axis=(2, 3)).reshape(2, -1),
                x.reshape(2, 2, 2, 2, 2, 3).max(axis=(3, 5)).reshape(2, -1),
            ],
            1,
        ),
    ),
    Case(
        'type: "Embed" embed_param { input_dim: 5 num_output: 3 ' + GAUSSIAN + BIAS + "}",
        [(2, 3)],
        given={0: [[0, 4, 4], [1, 0, 2]]},
        gradients=(),
    ),
    Case(
        'type: "BatchReindex"',
        [(3, 2), (4,)],
        lambda x, i: x[i.astype(int)],
        given={1: [2, 0, 2, 1]},
    ),
    Case('type: "Filter"', [(3, 2), (3,)], lambda x, s: x[s > 0], given={1: [1, 0, 1]}),
    Case(
        'type: "ArgMax" argmax_param { top_k: 2 axis: 1 }',
        [(3, 4)],
        lambda x: np.argsort(-x, axis=1)[:, :2],
        gradients=(),
    ),
    Case(
        'type: "ArgMax" argmax_param { out_max_val: true }',
        [(3, 4)],
        lambda x: np.stack([x.argmax(1), x.max(1)], 1)[..., None],
        gradients=(),
        name="values",
    ),
    Case(
        'type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }',
        [],
        lambda: np.zeros((2, 3)),
        gradients=(),
    ),
    Case(
        'type: "DummyData" dummy_data_param { shape { dim: 2 dim: 3 } '
        'data_filler { type: "constant" value: 4 } }',
        [],
        lambda: np.full((2, 3), 4.0),
        gradients=(),
    ),
    Case('type: "Dropout" dropout_param { dropout_ratio: 0.4 }', [(4, 50)]),
    Case(
        'type: "Dropout" dropout_param { dropout_ratio: 0.4 }',
        [(4, 50)],
        lambda x: x,
        phase=1,
        name="test",
    ),
    Case(
        'type: "EuclideanLoss"',
        [(3, 4), (3, 4)],
        lambda a, b: ((a - b) ** 2).sum() / 6,
        gradients=(0, 1),
    ),
    Case(
        'type: "SoftmaxWithLoss"',
        [(3, 4), (3,)],
        lambda x, t: -np.log(softmax(x)[np.arange(3), t.astype(int)]).mean(),
        given={1: LABELS},
    ),
    Case(
        'type: "SoftmaxWithLoss" loss_param { ignore_label: 0 normalization: FULL }',
        [(3, 4), (3,)],
        lambda x, t: -np.log(softmax(x)[[0, 2], [2, 3]]).sum() / 3,
        given={1: LABELS},
        name="ignore",
    ),
    Case(
        'type: "MultinomialLogisticLoss"',
        [(3, 4), (3,)],
        lambda p, t: -np.log(p[np.arange(3), t.astype(int)]).mean(),
        given={1: LABELS},
        low=0.1,
    ),
    Case(
        'type: "InfogainLoss"',
        [(3, 4), (3,), (1, 1, 4, 4)],
        lambda x, t, h: -(MATRIX[LABELS] * np.log(softmax(x))).sum() / 3,
        given={1: LABELS, 2: MATRIX[None, None]},
    ),
    Case(
        'type: "SigmoidCrossEntropyLoss"',
        [(3, 4), (3, 4)],
        lambda x, t: -(t * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))).sum() / 3,
        low=0.0,
    ),
    Case(
        'type: "HingeLoss"',
        [(3, 4), (3,)],
        lambda x, t: hinge(x, t, 1),
        given={1: LABELS},
        low=-0.9,
        high=0.9,
    ),
    Case(
        'type: "HingeLoss" hinge_loss_param { norm: L2 }',
        [(3, 4), (3,)],
        lambda x, t: hinge(x, t, 2),
        given={1: LABELS},
        low=-0.9,
        high=0.9,
        name="squared",
    ),
    Case(
        'type: "ContrastiveLoss" contrastive_loss_param { margin: 2 legacy_version: true }',
        [(3, 2), (3, 2), (3,)],
        lambda a, b, s: contrastive(a, b, s, True),
        given={2: [1, 0, 0]},
        gradients=(0, 1),
    ),
    Case(
        'type: "Accuracy" accuracy_param { top_k: 2 }',
        [(3, 4), (3,)],
        lambda x, t: np.mean([t[i] in np.argsort(-x[i])[:2] for i in range(3)]),
        given={1: LABELS},
        gradients=(),
    ),
    Case('type: "Silence"', [NCHW], tops=0, gradients=()),
]


def build(case: Case, phase: int | None = None) -> Net:
    """The case's net in float64, its inputs filled."""
    rng = np.random.default_rng(5)
    lines = ["force_backward: true"]
    for i, shape in enumerate(case.bottoms):
        dims = " ".join(f"dim: {d}" for d in shape)
        lines.append(
            f'layer {{ name: "in{i}" type: "Input" top: "b{i}" '
            f"input_param {{ shape {{ {dims} }} }} }}"
        )
    wires = "".join(f' bottom: "b{i}"' for i in range(len(case.bottoms)))
    wires += "".join(f' top: "t{i}"' for i in range(case.tops))
    lines.append(f'layer {{ name: "x"{wires} {case.layer} }}')
    param = text.parse("\n".join(lines), proto.NetParameter, "case")
    context = RunContext(seed=3, rng=CaffeRandom(3))
    net = Net(param, case.phase, create_backend("cpu", dtype=np.float64), context)
    for i, shape in enumerate(case.bottoms):
        count = int(np.prod(shape))
        values = rng.uniform(case.low, case.high, shape)
        if case.distinct:
            values = rng.permutation(count).reshape(shape) * 0.1 + 0.03 * i
        net.blobs[f"b{i}"].data.mutable_host()[...] = case.given.get(i, values)
    return net


def run(net: Net) -> None:
    net.context.pass_number = 0  # the same dropout mask each time
    net.forward()


@pytest.mark.parametrize("case", [c for c in CASES if c.expect], ids=str)
def test_forward_is_the_definition(case: Case) -> None:
    assert case.expect is not None
    with build(case) as net:
        run(net)
        inputs = [net.blobs[f"b{i}"].data.host().copy() for i in range(len(case.bottoms))]
        wanted = case.expect(*inputs)
        for i, want in enumerate(wanted if case.tops > 1 else [wanted]):
            got = net.blobs[f"t{i}"].data.host()
            # The runtime reads parameters as float32, as the prototxt stores them.
            np.testing.assert_allclose(
                got, np.asarray(want).reshape(got.shape), rtol=2e-7, atol=2e-7
            )


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.gradients or "Embed" in c.layer or "Parameter" in c.layer],
    ids=str,
)
def test_gradient_is_the_slope(case: Case) -> None:
    with build(case) as net:
        run(net)
        rng = np.random.default_rng(8)
        tops = [net.blobs[f"t{i}"] for i in range(case.tops)]
        layer = net.layer_by_name("x")
        assert layer is not None
        seeds = [rng.uniform(-1, 1, blob.shape) for blob in tops]

        def objective() -> float:
            run(net)
            return float(sum((s * b.data.host()).sum() for s, b in zip(seeds, tops)))

        checked = {f"bottom {i}": net.blobs[f"b{i}"] for i in case.gradients}
        if "BatchNorm" not in case.layer:
            checked |= {f"weight {i}": blob for i, blob in enumerate(layer.blobs)}
        values = {what: blob.data.host().copy() for what, blob in checked.items()}
        net.clear_param_diffs()
        for seed, blob in zip(seeds, tops):
            blob.diff.mutable_host()[...] = seed
        net.bottom_need_backward[-1] = [i in case.gradients for i in range(len(case.bottoms))]
        run(net)
        net.backward()
        slopes = {what: blob.diff.host().copy() for what, blob in checked.items()}
        for what, blob in checked.items():
            x = blob.data.mutable_host()
            check_gradient(f"{case}: {what}", objective, x, slopes[what], step=1e-5, kink=case.kink)
            np.testing.assert_array_equal(x, values[what])


def test_every_layer_type_has_a_row_or_a_test_of_its_own() -> None:
    from runtime.layer_factory import layer_type_list

    elsewhere = {"Data", "ImageData", "HDF5Data", "HDF5Output", "MemoryData", "Python", "Input"}
    rows = {case.layer.split('"')[1] for case in CASES}
    assert set(layer_type_list()) - rows == elsewhere


def test_gradients_of_weights_add_up_over_passes() -> None:
    case = next(c for c in CASES if str(c) == "Convolution")
    with build(case) as net:
        layer = net.layer_by_name("x")
        assert layer is not None
        run(net)
        net.blobs["t0"].diff.mutable_host()[...] = 1.0
        net.backward()
        once = [blob.diff.host().copy() for blob in layer.blobs]
        net.backward()
        for first, blob in zip(once, layer.blobs):
            np.testing.assert_allclose(blob.diff.host(), 2 * first)


IN_PLACE = [
    "ReLU",
    "Sigmoid",
    "TanH",
    "ELU",
    "PReLU",
    "Scale",
    "Bias",
    "Dropout",
    "Softmax",
    "BatchNorm",
]


@pytest.mark.parametrize("kind", IN_PLACE)
def test_in_place_gives_what_two_blobs_give(kind: str) -> None:
    case = next(c for c in CASES if c.layer.split('"')[1] == kind and len(c.bottoms) == 1)
    rng = np.random.default_rng(9)
    results = []
    seed = rng.uniform(-1, 1, case.bottoms[0])
    for in_place in (False, True):
        with build(case) as net:
            if in_place:
                net.tops[-1][0] = net.bottoms[-1][0]
                net.blobs["t0"] = net.bottoms[-1][0]
            run(net)
            y = net.blobs["t0"].data.host().copy()
            net.blobs["t0"].diff.mutable_host()[...] = seed
            net.backward()
            results.append(
                [
                    y,
                    net.bottoms[-1][0].diff.host().copy(),
                    *(b.diff.host().copy() for b in net.layers[-1].blobs),
                ]
            )
    for two, one in zip(*results):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)
