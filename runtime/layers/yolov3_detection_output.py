"""Yolov3DetectionOutput: the boxes of YOLO v3. Source: yolov3_detection_output_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.layer import Blobs
from runtime.core.layer_registry import register
from runtime.layers.yolo_detections import (
    COORDINATES,
    Candidates,
    YoloDetectionLayer,
    decode_boxes,
    joined,
    logistic,
)


@register("Yolov3DetectionOutput")
class Yolov3DetectionOutputLayer(YoloDetectionLayer):
    """A box for every class whose probability times the confidence exceeds the threshold.

    Shapes: see YoloDetectionLayer. Units: anchors in pixels, anchors_scale in pixels of a cell.
    """

    def settings(self) -> Any:
        """See YoloDetectionLayer.settings."""
        return self.param.yolov3_detection_output_param

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the anchors of every map.

        Raises:
            ProtoError: their numbers do not fit the bottoms.
        """
        super().layer_setup(bottom, top)
        param = self.settings()
        mask, groups = [int(index) for index in param.mask], int(param.mask_group_num)
        # A map takes num_box anchors from the place of its group on.
        step = len(mask) // groups if groups else 0
        needed = (len(bottom) - 1) * step + self.anchors_per_cell
        valid = groups == len(bottom) == len(param.anchors_scale) and len(mask) >= needed
        if not valid or any(index >= len(self.anchors) for index in mask):
            raise ProtoError(
                f"{self.label}: expected mask_group_num and anchors_scale for {len(bottom)} "
                f"bottom(s), and at least {max(needed, 1)} numbers of anchors below "
                f"{len(self.anchors)} in mask, got mask_group_num {groups}, anchors_scale "
                f"{list(param.anchors_scale)} and mask {mask}; correct the parameter"
            )
        self.scales = [int(scale) for scale in param.anchors_scale]
        self.masks = [mask[i * step : i * step + self.anchors_per_cell] for i in range(len(bottom))]

    def candidates(self, bottom: Blobs, image: int) -> Candidates:
        """See YoloDetectionLayer.candidates."""
        least = float(self.settings().confidence_threshold)
        parts = []
        for blob, mask, scale in zip(bottom, self.masks, self.scales, strict=True):
            cells = self.cells(blob, image)
            height, width = blob.shape[2:]
            units = (float(width * scale), float(height * scale))
            decoded = decode_boxes(cells[:, :COORDINATES], self.anchors[mask], units)
            confidence = logistic(cells[:, COORDINATES + 1 :]) * logistic(
                cells[:, COORDINATES, None]
            )
            # The order of the source: rows, columns, anchors, classes.
            rows, columns, anchors, classes = np.nonzero(confidence.transpose(2, 3, 0, 1) > least)
            boxes = decoded[anchors, rows, columns]
            found = confidence[anchors, classes, rows, columns]
            parts.append(Candidates(boxes, classes + 1, found))
        return joined(parts)
