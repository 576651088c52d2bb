"""Losses, scores and reductions: rows of the conformance table."""

from __future__ import annotations

import numpy as np

from tests.conformance.layer_case import (
    LABELS,
    MATRIX,
    NCHW,
    Case,
    contrastive,
    hinge,
    sigmoid,
    softmax,
)

CASES = [
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
]
