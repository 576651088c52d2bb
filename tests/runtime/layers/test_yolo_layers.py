"""The boxes of YOLO v2 and v3, compared with a loop over cells, anchors and classes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from prototxt_gen.errors import ProtoError, ShapeError
from tests.runtime.small_net import build

Box = tuple[int, float, float, float, float, float]
"""Label, confidence, centre x and y, width, height."""
V2 = (
    "num_classes: 3 num_box: 2 confidence_threshold: 0.2 nms_threshold: 0.3 "
    "biases: 1 biases: 2 biases: 0.5 biases: 0.7"
)
V3 = (
    "num_classes: 3 num_box: 2 confidence_threshold: 0.3 nms_threshold: 0.4 mask_group_num: 2 "
    "mask: 2 mask: 3 mask: 0 mask: 1 anchors_scale: 32 anchors_scale: 16 "
    "biases: 10 biases: 20 biases: 30 biases: 15 biases: 60 biases: 50 biases: 90 biases: 70"
)


def inputs(shapes: list[tuple[int, ...]]) -> str:
    return "".join(
        f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ '
        + " ".join(f"dim: {dim}" for dim in shape)
        + " } } }\n"
        for i, shape in enumerate(shapes)
    )


def detections(kind: str, param: str, maps: list[np.ndarray]) -> np.ndarray:
    text = inputs([m.shape for m in maps])
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(len(maps)))
    text += f'layer {{ name: "y" type: "{kind}" {bottoms} top: "y" {param} }}'
    with build(text) as net:
        for i, values in enumerate(maps):
            net.blobs[f"x{i}"].data.mutable_host()[...] = values
        net.forward()
        return np.array(net.blobs["y"].data.host())[0, 0]


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cells(values: np.ndarray, boxes: int) -> Any:
    """Rows, columns, anchors and the numbers of a box, in the order of the layers' sources."""
    parts = values.astype(float).reshape(boxes, -1, *values.shape[1:])
    for row in range(values.shape[1]):
        for column in range(values.shape[2]):
            for box in range(boxes):
                yield row, column, box, parts[box, :, row, column]


def box_of(row: int, column: int, x: np.ndarray, size: Any, anchor: Any, unit: Any) -> Any:
    return (
        (column + logistic(x[0])) / size[1],
        (row + logistic(x[1])) / size[0],
        math.exp(x[2]) * anchor[0] / unit[0],
        math.exp(x[3]) * anchor[1] / unit[1],
    )


def second_version(values: np.ndarray) -> list[Box]:
    found = []
    for row, column, box, x in cells(values, 2):
        anchor = [(1, 2), (0.5, 0.7)][box]
        size = values.shape[1:]
        powers = np.exp(x[5:]) / np.exp(x[5:]).sum()
        confidence = logistic(x[4]) * powers.max()
        if confidence >= 0.2:
            place = box_of(row, column, x, size, anchor, (size[1], size[0]))
            found.append((int(powers.argmax()) + 1, confidence, *place))
    return found


def third_version(maps: list[np.ndarray]) -> list[Box]:
    anchors = [(10, 20), (30, 15), (60, 50), (90, 70)]
    found = []
    for values, mask, scale in zip(maps, ((2, 3), (0, 1)), (32, 16), strict=True):
        for row, column, box, x in cells(values, 2):
            size = values.shape[1:]
            unit = (size[1] * scale, size[0] * scale)
            place = box_of(row, column, x, size, anchors[mask[box]], unit)
            for label, score in enumerate(x[5:], start=1):
                confidence = logistic(score) * logistic(x[4])
                if confidence > 0.3:
                    found.append((label, confidence, *place))
    return found


def overlap(a: Box, b: Box) -> float:
    sides = []
    for centre, size in ((2, 4), (3, 5)):
        low = max(a[centre] - a[size] / 2, b[centre] - b[size] / 2)
        sides.append(min(a[centre] + a[size] / 2, b[centre] + b[size] / 2) - low)
    if min(sides) < 0:
        return 0.0
    shared = sides[0] * sides[1]
    return shared / (a[4] * a[5] + b[4] * b[5] - shared)


def suppressed(found: list[Box], threshold: float) -> list[Box]:
    kept: list[Box] = []
    for box in sorted(found, key=lambda box: -box[1]):
        if all(overlap(box, other) < threshold for other in kept):
            kept.append(box)
    return kept


def rows(found: list[Box], image: int) -> list[list[float]]:
    return [
        [image, label, confidence, x - w / 2, y - h / 2, x + w / 2, y + h / 2]
        for label, confidence, x, y, w, h in found
    ]


def test_version_2_is_the_loop_over_cells() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1.5, (2, 16, 3, 4)).astype(np.float32)
    got = detections("YoloDetectionOutput", f"yolo_detection_output_param {{ {V2} }}", [values])
    wanted = [row for n in range(2) for row in rows(suppressed(second_version(values[n]), 0.3), n)]
    assert 4 < len(wanted) < sum(len(second_version(value)) for value in values)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_version_3_is_the_loop_over_maps() -> None:
    rng = np.random.default_rng(4)
    maps = [rng.normal(0, 1.5, (1, 16, *size)).astype(np.float32) for size in ((2, 3), (4, 6))]
    param = f"yolov3_detection_output_param {{ {V3} }}"
    got = detections("Yolov3DetectionOutput", param, maps)
    found = third_version([values[0] for values in maps])
    wanted = rows(suppressed(found, 0.4), 0)
    assert 4 < len(wanted) < len(found)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_an_image_without_boxes_has_a_row_of_minus_one() -> None:
    values = np.full((2, 16, 2, 2), -20, np.float32)
    got = detections("YoloDetectionOutput", f"yolo_detection_output_param {{ {V2} }}", [values])
    np.testing.assert_array_equal(got, [[n, *[-1] * 6] for n in range(2)])


@pytest.mark.parametrize(
    ("kind", "param", "message"),
    [
        ("YoloDetectionOutput", V2.replace("num_box: 2", "num_box: 4"), "2 anchors in biases"),
        ("YoloDetectionOutput", V2 + " biases: 1", "pairs of numbers in biases"),
        ("YoloDetectionOutput", V2.replace("classes: 3", "classes: 4"), "expected bottoms .1,18,"),
        ("Yolov3DetectionOutput", V3, "mask_group_num and anchors_scale for 1 bottom"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(kind: str, param: str, message: str) -> None:
    name = "yolov3_detection_output_param" if "v3" in kind else "yolo_detection_output_param"
    values = np.zeros((1, 16, 2, 2), np.float32)
    with pytest.raises((ProtoError, ShapeError), match=message):
        detections(kind, f"{name} {{ {param} }}", [values])
