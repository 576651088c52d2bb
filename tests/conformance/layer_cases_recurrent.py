"""Recurrent layers and Im2col: rows of the conformance table.

test_recurrent.py compares LSTM and RNN with their unrolled nets.
"""

from __future__ import annotations

import numpy as np

from tests.conformance.layer_case import BIAS, GAUSSIAN, NCHW, Array, Case, sigmoid

CONT = np.array([[0, 0], [1, 0], [1, 1]])


def lstm_unit(cell: Array, gates: Array, cont: Array) -> tuple[Array, Array]:
    i, f, o, g = (gates[..., 3 * k : 3 * k + 3] for k in range(4))
    new = np.where(cont[..., None] > 0, sigmoid(f) * cell, 0) + sigmoid(i) * np.tanh(g)
    return new, np.asarray(sigmoid(o) * np.tanh(new))


def im2col(x: Array, stride: int = 2, pad: int = 1, dilation: int = 2) -> Array:
    """Windows of 2 by 3 pixels, number by number."""
    n, c, h, w = x.shape
    high, wide = (
        (h + 2 * pad - dilation - 1) // stride + 1,
        (w + 2 * pad - 2 * dilation - 1) // 2 + 1,
    )
    out = np.zeros((n, c * 6, high, wide))
    for channel, i, j, p, q in np.ndindex(c, 2, 3, high, wide):
        row, column = p * stride - pad + i * dilation, q * stride - pad + j * dilation
        if 0 <= row < h and 0 <= column < w:
            out[:, channel * 6 + i * 3 + j, p, q] = x[:, channel, row, column]
    return out


def recurrent(kind: str, rest: str = "") -> str:
    return f'type: "{kind}" recurrent_param {{ num_output: 3 {GAUSSIAN} {BIAS} {rest} }}'


EXPOSED = "expose_hidden: true"
CASES = [
    Case(
        'type: "LSTMUnit"',
        [(1, 4, 3), (1, 4, 12), (1, 4)],
        lstm_unit,
        given={2: [[0, 1, 1, 0]]},
        gradients=(0, 1),
        tops=2,
    ),
    Case(recurrent("LSTM"), [(3, 2, 4), (3, 2)], given={1: CONT}),
    Case(
        recurrent("LSTM"),
        [(3, 2, 2, 2), (3, 2), (2, 5)],
        given={1: CONT},
        gradients=(0, 2),
        name="static",
    ),
    Case(recurrent("RNN"), [(3, 2, 4), (3, 2)], given={1: CONT}),
    Case(
        recurrent("RNN"),
        [(3, 2), (3, 2), (2,)],
        given={1: CONT},
        gradients=(0, 2),
        name="static",
    ),
    Case(
        'type: "Im2col" convolution_param { kernel_h: 2 kernel_w: 3 stride: 2 pad: 1 dilation: 2 }',
        [(2, 3, 6, 8)],
        im2col,
    ),
    Case(
        'type: "Im2col" convolution_param { kernel_size: 1 axis: 2 }',
        [NCHW],
        lambda x: x,
        name="axis",
    ),
]
