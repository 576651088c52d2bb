"""Layers of other builds of Caffe against the importer of OpenCV, where it has them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.weights.net_weights import save
from tests.runtime.small_net import build

needs_importer = pytest.mark.skipif(
    not hasattr(cv2.dnn, "readNetFromCaffe"), reason="this OpenCV does not read Caffe's nets"
)
LAYERS = {
    "permute": 'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }',
    "normalize": 'type: "Normalize" norm_param { across_spatial: false channel_shared: false }',
    "normalize_spatial": 'type: "Normalize" norm_param { across_spatial: true eps: 0.001 }',
    "relu6": 'type: "ReLU6"',
    "depthwise": (
        'type: "ConvolutionDepthwise" convolution_param { num_output: 4 kernel_size: 3 stride: 2 '
        "group: 4 }"
    ),
    "shuffle_channel": 'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
    "interp": 'type: "Interp" interp_param { height: 13 width: 5 }',
    "interp_zoom": 'type: "Interp" interp_param { zoom_factor: 3 }',
    "ceil_mode": 'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }',
    "prior_box": (
        'type: "PriorBox" bottom: "z" prior_box_param { min_size: 4 max_size: 9 aspect_ratio: 2 '
        "aspect_ratio: 3 flip: true clip: true variance: 0.1 variance: 0.1 variance: 0.2 "
        "variance: 0.2 step: 8 offset: 0.5 }"
    ),
    "prior_steps": 'type: "PriorBox" bottom: "z" prior_box_param { min_size: 5 variance: 0.1 }',
    # OpenCV scales the third bottom in the place of the second, so that both are one here.
    "axpy": 'type: "Axpy" bottom: "x" bottom: "x"',
    "reorg": 'type: "Reorg" reorg_param { stride: 2 }',
    "roi_pooling": (
        'type: "ROIPooling" bottom: "rois" roi_pooling_param { pooled_h: 3 pooled_w: 2 '
        "spatial_scale: 0.5 }"
    ),
}
SHAPES = {
    "x": (1, 4, 7, 9),
    "z": (1, 3, 50, 70),
    "s": (1, 4, 1, 1),
    "r": (1, 4, 6, 8),
    "rois": (3, 5),
}
ROIS = np.array([[0, 0, 0, 8, 6], [0, 1, 2, 17, 9], [0, 3, 3, 3, 3]], np.float32)


def prototxt(layer: str) -> tuple[str, list[str]]:
    """A net of one layer, and its inputs."""
    first = {"Axpy": "s", "Reorg": "r"}.get(layer.split('"')[1], "x")
    names = [name for name in SHAPES if f'"{name}"' in layer or name == first]
    content = ""
    for name in names:
        dims = " ".join(f"dim: {dim}" for dim in SHAPES[name])
        content += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        content += f"input_param {{ shape {{ {dims} }} }} }}\n"
    return content + f'layer {{ name: "y" bottom: "{first}" top: "y" {layer} }}\n', names


@needs_importer
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_opencv_computes(name: str, tmp_path: Path) -> None:
    content, names = prototxt(LAYERS[name])
    (tmp_path / "net.prototxt").write_text(content)
    with build(content, seed=4) as net:
        if "rois" in names:
            net.blobs["rois"].data.mutable_host()[...] = ROIS
        if name == "relu6":
            net.blobs["x"].data.mutable_host()[...] *= 5
        net.forward()
        save(net, tmp_path / "net.caffemodel")
        other = cv2.dnn.readNetFromCaffe(
            str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")
        )
        for each in names:
            other.setInput(net.blobs[each].data.host(), each)
        want = net.blobs["y"].data.host()
        got = other.forward("y").reshape(want.shape)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


DETECTION = """
layer { name: "loc" type: "Input" top: "loc" input_param { shape { dim: 1 dim: %d } } }
layer { name: "conf" type: "Input" top: "conf" input_param { shape { dim: 1 dim: 120 } } }
layer { name: "priors" type: "Input" top: "priors" input_param {
  shape { dim: 1 dim: 2 dim: 160 } } }
layer { name: "y" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "y"
  detection_output_param { num_classes: 3 %s } }
"""


@needs_importer
@pytest.mark.parametrize(
    "settings",
    [
        "code_type: CENTER_SIZE nms_param { nms_threshold: 0.3 top_k: 20 } keep_top_k: 9",
        "code_type: CENTER_SIZE confidence_threshold: 0.6 nms_param { nms_threshold: 0.45 }",
        "nms_param { nms_threshold: 0.7 } confidence_threshold: 0.1",
        "nms_param { nms_threshold: 0.5 } confidence_threshold: 0.2 background_label_id: 1",
        "share_location: false nms_param { nms_threshold: 0.5 } confidence_threshold: 0.2",
    ],
)
def test_detections_are_those_of_opencv(settings: str, tmp_path: Path) -> None:
    # OpenCV requires these fields, and adds rows of zeros; keep_top_k: 100 has no effect here.
    fields = ("keep_top_k: 100", "background_label_id: 0", "code_type: CORNER")
    for field in (*fields, "share_location: true"):
        settings += "" if field.split(":")[0] in settings else f" {field}"
    content = DETECTION % (480 if "share_location: false" in settings else 160, settings)
    (tmp_path / "net.prototxt").write_text(content)
    rng = np.random.default_rng(2)
    corners = rng.uniform(0, 0.6, (40, 2))
    boxes = np.hstack([corners, corners + rng.uniform(0.1, 0.4, (40, 2))])
    variances = np.tile([0.1, 0.1, 0.2, 0.2], 40)
    given = {
        "loc": rng.uniform(-1, 1, (1, 480 if "share_location: false" in settings else 160)) * 0.5,
        "conf": rng.uniform(0, 1, (1, 120)),
        "priors": np.stack([boxes.ravel(), variances])[None],
    }
    with build(content, seed=4) as net:
        other = cv2.dnn.readNetFromCaffe(str(tmp_path / "net.prototxt"))
        for name, values in given.items():
            net.blobs[name].data.mutable_host()[...] = values
            other.setInput(values.astype(np.float32), name)
        net.forward()
        want = net.blobs["y"].data.host().reshape(-1, 7)
        got = other.forward("y").reshape(-1, 7)
        got = got[got[:, 2] > 0]
    assert 3 < len(want) < 80
    order = [np.lexsort((rows[:, 3], -rows[:, 2], rows[:, 1])) for rows in (want, got)]
    np.testing.assert_allclose(got[order[1]], want[order[0]], rtol=1e-4, atol=1e-5)
