"""Layers that other builds of Caffe have: rows of the conformance table."""

from __future__ import annotations

import math

import numpy as np

from tests.conformance.layer_case import BIAS, GAUSSIAN, LABELS, NCHW, Array, Case

CHANNELS = (1, 2, 3)
SCALES = 'scale_filler { type: "constant" value: 2 } shift_filler { type: "constant" value: 0.5 }'
SLOPES = 'slope_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 0.5 }'
ROIS = np.array([[0, 0, 0, 5, 5], [1, 3, 1, 9, 4], [0, 2, 2, 2, 2], [1, -4, -4, -3, -3]])
SCORES = np.array(
    [[0.5, 0.3125, 0.9, 0.375, 0.2, 0.9, 0.25, 0.875, 0.9], [0.375, 0, 1, 0.25, 0, 1, 0, 0, 1]]
)
PRIORS = np.array([[[0, 0, 0.5, 1, 0, 0, 0.5, 0.75, 0.5, 0, 1, 1], [0.1] * 12]])
MASK = np.array([[[[0, 3, 8], [13, 15, 20]], [[1, 2, 4], [12, 23, 14]]]])


def normalized(
    x: Array, axes: int | tuple[int, ...], scale: float = 1, eps: float = 1e-10
) -> Array:
    return np.asarray(scale * x / np.sqrt((x**2).sum(axis=axes, keepdims=True) + eps))


def resized(x: Array, height: int, width: int) -> Array:
    """Each number from its four neighbours, one after the other."""
    out = np.zeros((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            v = i * (x.shape[2] - 1) / max(height - 1, 1)
            u = j * (x.shape[3] - 1) / max(width - 1, 1)
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    near = max(0, 1 - abs(v - row)) * max(0, 1 - abs(u - column))
                    out[:, :, i, j] += near * x[:, :, row, column]
    return out


def unpooled(x: Array, mask: Array) -> Array:
    out = np.zeros((1, 2, 24))
    for channel in range(2):
        for value, place in zip(x[0, channel].ravel(), mask[0, channel].ravel()):
            out[0, channel, int(place)] = value
    return out.reshape(1, 2, 4, 6)


def roi_pooled(x: Array, rois: Array, scale: float = 0.5) -> Array:
    """Two by two parts, by the definition, number by number."""
    out = np.zeros((len(rois), x.shape[1], 2, 2))
    for r, (item, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (math.copysign(math.floor(abs(v * scale) + 0.5), v) for v in corners)
        high, wide = max(y2 - y1 + 1, 1) / 2, max(x2 - x1 + 1, 1) / 2
        for i in range(2):
            for j in range(2):
                inside = [
                    x[int(item), :, row, column]
                    for row in range(x.shape[2])
                    for column in range(x.shape[3])
                    if math.floor(i * high) + y1 <= row < math.ceil((i + 1) * high) + y1
                    and math.floor(j * wide) + x1 <= column < math.ceil((j + 1) * wide) + x1
                ]
                out[r, :, i, j] = np.max(inside, axis=0) if inside else 0
    return out


def smooth_l1(d: Array, sigma: float = 1) -> Array:
    near = np.abs(d) < 1 / sigma**2
    return np.where(near, 0.5 * sigma**2 * d**2, np.abs(d) - 0.5 / sigma**2)


def priors() -> Array:
    """One min_size of 4 and max_size of 9, ratio 4 and its inverse, on 2x3 positions of 20x30."""
    boxes = []
    for row in range(2):
        for column in range(3):
            for w, h in ((4, 4), (6, 6), (8, 2), (2, 8)):
                x, y = (column + 0.5) * 10, (row + 0.5) * 10
                boxes += [(x - w / 2) / 30, (y - h / 2) / 20, (x + w / 2) / 30, (y + h / 2) / 20]
    return np.array([[boxes, [0.1, 0.1, 0.2, 0.2] * 24]])


def batch_normal(x: Array, eps: float) -> Array:
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return np.asarray((x - mean) / np.sqrt(var + eps))


def reorganised(x: Array, stride: int) -> Array:
    """Darknet's loop, element by element."""
    n, c, h, w = x.shape
    rest = c // stride**2
    flat, out = x.reshape(n, -1), np.zeros((n, x[0].size))
    for k in range(c):
        for j in range(h):
            for i in range(w):
                row = j * stride + k // rest // stride
                column = i * stride + k // rest % stride
                source = column + w * stride * (row + h * stride * (k % rest))
                out[:, i + w * (j + h * k)] = flat[:, source]
    return out.reshape(n, c * stride**2, h // stride, w // stride)


def centre_loss(x: Array, label: Array) -> float:
    return float(((x - 0.25) ** 2).sum() / (2 * len(label)))


def with_margin(x: Array, label: Array) -> Array:
    y = x.copy()
    for row, true in enumerate(label.astype(int)):
        y[row, true] -= 0.35 if y[row, true] > 0.35 else 0
    return y


CASES = [
    Case('type: "Reorg" reorg_param { stride: 2 }', [(2, 8, 4, 6)], lambda x: reorganised(x, 2)),
    Case(
        'type: "Reorg" reorg_param { stride: 2 reverse: true }',
        [(1, 8, 3, 2)],
        lambda x: x.reshape(2, 2, 2, 3, 2).transpose(2, 3, 0, 4, 1).reshape(1, 2, 6, 4),
        name="reverse",
    ),
    Case(
        'type: "CenterLoss" param { lr_mult: 0 } center_loss_param { num_output: 4 '
        'center_filler { type: "constant" value: 0.25 } }',
        [(3, 2, 2), (3,)],
        centre_loss,
        given={1: LABELS},
    ),
    Case(
        'type: "LabelSpecificAdd" label_specific_add_param { bias: -0.35 }',
        [(3, 4), (3,)],
        with_margin,
        given={1: LABELS},
        kink=0.35,
    ),
    Case(
        'type: "LabelSpecificAdd" label_specific_add_param { bias: -0.35 }',
        [(3, 4), (3,)],
        lambda x, label: x,
        given={1: LABELS},
        phase=1,
        name="test",
    ),
    Case(
        'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }',
        [NCHW],
        lambda x: x.transpose(0, 2, 3, 1),
    ),
    Case(
        'type: "Permute" permute_param { order: 2 }',
        [(2, 3, 4)],
        lambda x: x.transpose(2, 0, 1),
        name="part",
    ),
    Case('type: "Normalize"', [NCHW], lambda x: normalized(x, CHANNELS)),
    Case(
        'type: "Normalize" norm_param { across_spatial: false channel_shared: false eps: 0.5 '
        'scale_filler { type: "constant" value: 20 } }',
        [NCHW],
        lambda x: normalized(x, 1, 20, 0.5),
        name="channels",
    ),
    Case(
        'type: "Normalize" norm_param { channel_shared: false }',
        [NCHW],
        lambda x: normalized(x, CHANNELS),
        name="scales",
    ),
    Case(
        'type: "ReLU6"',
        [NCHW],
        lambda x: np.minimum(np.maximum(x, 0), 6),
        low=-8.0,
        high=14.0,
        kink=0.0,
    ),
    Case(
        'type: "Axpy"',
        [(2, 3, 1, 1), NCHW, NCHW],
        lambda a, x, y: a * x + y,
        gradients=(0, 1, 2),
    ),
    Case(
        'type: "Axpy"',
        [(2, 3), NCHW, NCHW],
        lambda a, x, y: a[:, :, None, None] * x + y,
        gradients=(0, 1, 2),
        name="flat",
    ),
    Case(
        'type: "DepthwiseConvolution" convolution_param { num_output: 3 kernel_size: 3 pad: 1 '
        "stride: 2 " + GAUSSIAN + BIAS + "}",
        [(2, 3, 5, 6)],
    ),
    Case(
        'type: "ConvolutionDepthwise" convolution_param { kernel_h: 3 kernel_w: 2 dilation: 2 '
        + GAUSSIAN
        + "bias_term: false }",
        [(2, 3, 5, 6)],
    ),
    Case(
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        [(2, 6, 2, 3)],
        lambda x: x[:, [0, 2, 4, 1, 3, 5]],
    ),
    Case(
        'type: "Interp" interp_param { height: 7 width: 5 }',
        [NCHW],
        lambda x: resized(x, 7, 5),
    ),
    Case(
        'type: "Interp" interp_param { zoom_factor: 3 pad_beg: -1 pad_end: -1 }',
        [(1, 2, 4, 5)],
        lambda x: resized(x[:, :, 1:-1, 1:-1], 4, 7),
        name="zoom",
    ),
    Case(
        'type: "Interp" interp_param { shrink_factor: 2 zoom_factor: 2 }',
        [(1, 2, 6, 5)],
        lambda x: resized(x, 5, 5),
        name="shrink",
    ),
    Case(
        'type: "Interp"',
        [(2, 2, 3, 4), (1, 1, 1, 6)],
        lambda x, _: resized(x, 1, 6),
        name="bottom",
    ),
    Case('type: "Upsample"', [(1, 2, 2, 3)] * 2, unpooled, given={1: MASK}),
    Case(
        'type: "Upsample" upsample_param { upsample_h: 4 upsample_w: 6 }',
        [(1, 2, 2, 3)] * 2,
        unpooled,
        given={1: MASK},
        name="size",
    ),
    Case(
        'type: "CropCenter" crop_center_param { crop_size: 0 crop_size: 1 crop_size: 1 '
        "crop_size: 2 }",
        [NCHW],
        lambda x: x[:, 1:2, 1:3, 2:3],
    ),
    Case('type: "Flip"', [NCHW], lambda x: x[..., ::-1]),
    Case(
        'type: "Flip" flip_param { flip_width: false flip_height: true }',
        [NCHW],
        lambda x: x[:, :, ::-1],
        name="height",
    ),
    Case(
        'type: "Flip" flip_param { flip_height: true }',
        [NCHW],
        lambda x: x[:, :, ::-1, ::-1],
        name="both",
    ),
    Case(
        'type: "SmoothL1Loss"',
        [(3, 4)] * 2,
        lambda a, b: smooth_l1(a - b).sum() / 3,
        low=-2.0,
        high=2.0,
        gradients=(0, 1),
    ),
    Case(
        'type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 }',
        [(3, 4)] * 4,
        lambda a, b, inside, outside: (outside * smooth_l1(inside * (a - b), 3)).sum() / 3,
        gradients=(0, 1),
        name="weights",
    ),
    Case(
        'type: "SmoothL1Loss"',
        [(3, 4, 1, 1)] * 3,
        lambda a, b, inside: smooth_l1(inside * (a - b)).sum() / 3,
        gradients=(0, 1),
        name="inside",
    ),
    Case(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }',
        [(2, 2, 4, 5), (4, 5)],
        roi_pooled,
        given={1: ROIS},
        distinct=True,
    ),
    Case(
        'type: "PriorBox" prior_box_param { min_size: 4.5 max_size: 9 aspect_ratio: 4 '
        "aspect_ratio: 1 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }",
        [(2, 3, 2, 3), (2, 3, 20, 30)],
        lambda *_: priors(),
        gradients=(),
    ),
    Case(
        f'type: "BN" bn_param {{ {SCALES} }}',
        [NCHW],
        lambda x: 2 * batch_normal(x, 1e-9) + 0.5,
    ),
    Case(
        f'type: "BN" bn_param {{ bn_mode: INFERENCE {SCALES} }}',
        [NCHW],
        lambda x: 2 * x + 0.5,
        name="inference",
    ),
    Case(
        f'type: "BN" bn_param {{ {SLOPES} }}',
        [NCHW],
        lambda x: 2 * batch_normal(x, 1e-5) + 0.5,
        name="slopes",
    ),
    Case(
        f'type: "BN" bn_param {{ {SLOPES} frozen: true eps: 3 }}',
        [NCHW],
        lambda x: 2 * x / 2 + 0.5,
        name="frozen",
    ),
    Case(
        f'type: "BN" bn_param {{ {SCALES} decay: 0.9 var_eps: 0.01 }}',
        [NCHW],
        lambda x: 2 * batch_normal(x, 0.01) + 0.5,
        name="decay",
    ),
    Case(
        f'type: "BN" bn_param {{ {SLOPES} eps: 0.25 }}',
        [NCHW],
        lambda x: 2 * x / 0.5 + 0.5,
        phase=1,
        name="test",
    ),
    Case(
        f'type: "BN" bn_param {{ {SCALES} moving_average: false var_eps: 0.01 }}',
        [NCHW],
        lambda x: 2 * batch_normal(x, 0.01) + 0.5,
        phase=1,
        name="batch",
    ),
    Case(
        'type: "DetectionOutput" detection_output_param { num_classes: 3 background_label_id: 2 '
        "confidence_threshold: 0.25 nms_param { nms_threshold: 0.4 } keep_top_k: 2 }",
        [(2, 12), (2, 9), (1, 2, 12)],
        lambda *_: [
            [0, 0, 0.5, 0, 0, 0.5, 1],
            [0, 1, 0.875, 0.5, 0, 1, 1],
            [1, 0, 0.375, 0, 0, 0.5, 1],
        ],
        given={0: np.zeros((2, 12)), 1: SCORES, 2: PRIORS},
        gradients=(),
    ),
    Case(
        'type: "DetectionOutput" detection_output_param { num_classes: 1 background_label_id: -1 '
        "code_type: CORNER_SIZE variance_encoded_in_target: true }",
        [(1, 4), (1, 1), (1, 2, 4)],
        lambda *_: [0, 0, 0.75, 0.25, 1, 1, 1.75],
        given={
            0: [[0.5, 1, 1, 0.75]],
            1: [[0.75]],
            2: [[[0, 0, 0.5, 1], [0.1] * 4]],
        },
        gradients=(),
        name="corner_size",
    ),
    Case(
        'type: "DetectionOutput" detection_output_param { num_classes: 2 '
        "confidence_threshold: 0.5 }",
        [(2, 4), (2, 2), (1, 2, 4)],
        lambda *_: [[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]],
        given={1: [[1, 0.5], [1, 0.25]]},
        gradients=(),
        name="nothing",
    ),
    Case(
        'type: "DetectionOutput" detection_output_param { num_classes: 1 background_label_id: -1 '
        "nms_param { nms_threshold: 0.8 eta: 0.75 } }",
        [(1, 8), (1, 2), (1, 2, 8)],
        lambda *_: [0, 0, 0.75, 0, 0, 1, 1],
        given={
            0: np.zeros((1, 8)),
            1: [[0.5, 0.75]],
            2: [[[0, 0, 0.7, 1, 0, 0, 1, 1], [0.1] * 8]],
        },
        gradients=(),
        name="eta",
    ),
]
