"""Where a layer of another build of Caffe has a rule of its own: statistics, settings, values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import ProtoError, ShapeError
from tests.conformance.layer_case import NCHW
from tests.conformance.test_layer_details import build, give

BATCH = np.arange(12.0).reshape(2, 2, 1, 3)


@pytest.mark.parametrize(
    ("settings", "kept"), [("momentum: 0.75", 0.75), ("decay: 0.25", 0.75), ("", 0.9)]
)
def test_running_statistics_of_bn(settings: str, kept: float) -> None:
    given = settings or 'slope_filler { type: "constant" value: 1 }'
    with build(f'type: "BN" bn_param {{ {given} }}', BATCH.shape) as net:
        give(net, BATCH)
        layer = net.layer_by_name("x")
        assert layer is not None
        assert [spec.lr_mult for spec in layer.param.param] == [1, 1, 0, 0]
        net.forward()
        mean, var = BATCH.mean((0, 2, 3)), BATCH.var((0, 2, 3))
        for factor in (1 - kept, (1 - kept) * (1 + kept)):
            for blob, value in zip(layer.blobs[2:], (mean, var)):
                np.testing.assert_allclose(blob.data.host().ravel(), factor * value, rtol=1e-6)
            net.forward()


def test_a_frozen_bn_learns_nothing() -> None:
    with build('type: "BN" bn_param { frozen: true }', BATCH.shape) as net:
        layer = net.layer_by_name("x")
        assert layer is not None
        assert [spec.lr_mult for spec in layer.param.param] == [0, 0, 0, 0]
        before = [blob.data.host().copy() for blob in layer.blobs]
        give(net, BATCH)
        net.forward()
        for blob, value in zip(layer.blobs, before):
            np.testing.assert_array_equal(blob.data.host(), value)


@pytest.mark.parametrize(("entries", "blobs"), [(2, 2), (4, 4)])
def test_bn_without_fields_takes_its_layout_from_the_param_entries(
    entries: int, blobs: int
) -> None:
    with build(f'type: "BN" {"param { lr_mult: 1 } " * entries}', BATCH.shape) as net:
        layer = net.layer_by_name("x")
        assert layer is not None and len(layer.blobs) == blobs


@pytest.mark.parametrize(
    ("layer", "shapes", "complaint"),
    [
        ('type: "BN"', [NCHW], "the layout of the weights is not given"),
        ('type: "BN" bn_param { eps: 1 bn_mode: LEARN }', [NCHW], "belong to different layouts"),
        ('type: "Permute" permute_param { order: 1 order: 1 }', [NCHW], "not of the bottom's axes"),
        ('type: "Permute" permute_param { order: 4 }', [NCHW], "expected different axes below 4"),
        ('type: "Axpy"', [(2, 4), NCHW, NCHW], "the bottoms do not fit"),
        ('type: "Axpy"', [(2, 3, 1, 2), NCHW, NCHW], "the bottoms do not fit"),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', [NCHW], "does not divide"),
        (
            'type: "DepthwiseConvolution" convolution_param { num_output: 6 kernel_size: 1 }',
            [NCHW],
            "num_output is 6; expected the 3 channels",
        ),
        (
            'type: "ConvolutionDepthwise" convolution_param { kernel_size: 1 group: 2 }',
            [NCHW],
            "group is 2; expected the 3 channels",
        ),
        ('type: "Interp"', [NCHW], "expected height and width, or shrink_factor or zoom_factor"),
        ('type: "Interp" interp_param { height: 3 }', [NCHW], "the size is not given"),
        (
            'type: "Interp" interp_param { height: 3 width: 3 zoom_factor: 2 }',
            [NCHW],
            "the size is not given",
        ),
        ('type: "Interp" interp_param { zoom_factor: 0 }', [NCHW], "expected at least 1"),
        ('type: "Interp" interp_param { zoom_factor: 2 pad_beg: 1 }', [NCHW], "expected 0 or belo"),
        ('type: "Interp" interp_param { zoom_factor: 2 pad_end: -9 }', [NCHW], "nothing is left"),
        ('type: "Interp" interp_param { zoom_factor: 2 }', [NCHW, NCHW], "size is given twice"),
        ('type: "Upsample"', [NCHW, (2, 3, 4, 6)], "the mask does not fit"),
        ('type: "Upsample" upsample_param { upsample_h: 3 }', [NCHW, NCHW], "got one"),
        ('type: "Upsample" upsample_param { scale_h: 3 }', [NCHW, NCHW], "got one"),
        (
            'type: "Upsample" upsample_param { scale: 3 pad_out_h: true }',
            [NCHW, NCHW],
            "are for a scale of 2",
        ),
        ('type: "CropCenter" crop_center_param { crop_size: 1 }', [NCHW], "does not suit shape"),
        (
            'type: "CropCenter" ' + "crop_center_param { crop_size: [1, 0, 0, 0] }",
            [NCHW],
            "below half of its size",
        ),
        ('type: "SmoothL1Loss"', [(3, 4), (3, 5)], "the bottoms differ"),
        ('type: "ROIPooling" roi_pooling_param { pooled_h: 2 }', [NCHW, (1, 5)], "at least 1"),
        (
            'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
            [NCHW, (1, 4)],
            r"expected shape \(R,5\)",
        ),
        ('type: "PriorBox"', [NCHW, NCHW], "expected at least one min_size"),
        (
            'type: "PriorBox" prior_box_param { min_size: 4 max_size: 4 }',
            [NCHW, NCHW],
            "not above min_size",
        ),
        (
            'type: "PriorBox" prior_box_param { min_size: 4 variance: [1, 2] }',
            [NCHW, NCHW],
            "expected one or 4 numbers",
        ),
        (
            'type: "PriorBox" prior_box_param { min_size: 4 step: 2 step_h: 3 step_w: 3 }',
            [NCHW, NCHW],
            "do not fit together",
        ),
        (
            'type: "PriorBox" prior_box_param { min_size: 4 aspect_ratio: 0 }',
            [NCHW, NCHW],
            "aspect_ratio is 0",
        ),
        ('type: "DetectionOutput"', [(1, 4), (1, 1), (1, 2, 4)], "num_classes is 0"),
        (
            'type: "DetectionOutput" detection_output_param { num_classes: 1 '
            "nms_param { eta: 0 } }",
            [(1, 4), (1, 1), (1, 2, 4)],
            "eta 0; expected",
        ),
        (
            'type: "DetectionOutput" detection_output_param { num_classes: 2 }',
            [(1, 4), (1, 1), (1, 2, 4)],
            r"expected \(N,4\), \(N,2\) and \(1,2,4\) for 1 priors",
        ),
        (
            'type: "DetectionOutput" detection_output_param { num_classes: 1 '
            "background_label_id: 1 }",
            [(1, 4), (1, 1), (1, 2, 4)],
            "background_label_id is 1",
        ),
    ],
)
def test_settings_of_other_builds_that_are_refused(
    layer: str, shapes: list[tuple[int, ...]], complaint: str
) -> None:
    with pytest.raises((ProtoError, ShapeError), match=complaint):
        build(layer, *shapes)


@pytest.mark.parametrize(
    ("layer", "second", "complaint"),
    [
        ('"Upsample"', np.full((1, 1, 2, 2), 16.0), "place outside of the top; expected 0 to 15"),
        ('"Upsample"', np.full((1, 1, 2, 2), -1.0), "place outside of the top"),
        ('"Upsample"', np.full((1, 1, 2, 2), np.nan), "place outside of the top"),
        ('"ROIPooling"', [[1.0, 0, 0, 1, 1]], "of an item that is not there; expected 0 to 0"),
        ('"ROIPooling"', [[0.0, np.inf, 0, 1, 1]], "a coordinate that is not finite"),
    ],
)
def test_values_of_other_builds_that_are_refused(layer: str, second: Any, complaint: str) -> None:
    settings = "roi_pooling_param { pooled_h: 1 pooled_w: 1 }" if "ROI" in layer else ""
    with build(f"type: {layer} {settings}", (1, 1, 2, 2), np.shape(second)) as net:
        give(net, 1, second)
        with pytest.raises(ShapeError, match=complaint):
            net.forward()


def test_a_centre_moves_to_the_mean_of_its_samples() -> None:
    """The gradient of a centre is divided by one more than the number of its samples."""
    layer = (
        'type: "CenterLoss" center_loss_param { num_output: 4 '
        'center_filler { type: "constant" value: 1 } }'
    )
    with build(layer, (3, 2), (3,)) as net:
        give(net, [[2, 3], [4, 5], [6, 7]], [2, 0, 2])
        net.forward()
        net.blobs["t0"].diff.mutable_host()[...] = 1
        net.bottom_need_backward[-1] = [True, False]
        net.backward()
        centres = net.layers[-1].blobs[0]
        expected = [[-3 / 2, -4 / 2], [0, 0], [-6 / 3, -8 / 3], [0, 0]]
        np.testing.assert_allclose(centres.diff.host(), expected, rtol=1e-6)
