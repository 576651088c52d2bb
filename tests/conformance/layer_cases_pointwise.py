"""Layers that keep the shape: rows of the conformance table."""

from __future__ import annotations

import numpy as np

from tests.conformance.layer_case import BIAS, NCHW, Case, batch_norm, mvn, sigmoid, softmax

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
    Case('type: "Softmax"', [NCHW], softmax),
    Case(
        'type: "Softmax" softmax_param { axis: 3 }', [NCHW], lambda x: softmax(x, 3), name="axis3"
    ),
    Case('type: "Dropout" dropout_param { dropout_ratio: 0.4 }', [(4, 50)]),
    Case(
        'type: "Dropout" dropout_param { dropout_ratio: 0.4 }',
        [(4, 50)],
        lambda x: x,
        phase=1,
        name="test",
    ),
]
