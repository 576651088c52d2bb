"""Layers that look around or change the shape: rows of the conformance table."""

from __future__ import annotations

import numpy as np

from tests.conformance.layer_case import BIAS, GAUSSIAN, NCHW, XAVIER, Case

CASES = [
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
    Case('type: "Silence"', [NCHW], tops=0, gradients=()),
]
