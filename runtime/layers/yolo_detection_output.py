"""YoloDetectionOutput: the boxes of YOLO v2. Source: yolo_detection_output_layer.cpp."""

from __future__ import annotations

from typing import Any

import numpy as np

from prototxt_gen.errors import ProtoError
from runtime.core.layer import Blobs, between
from runtime.core.layer_registry import register
from runtime.layers.yolo_detections import (
    COORDINATES,
    Candidates,
    YoloDetectionLayer,
    decode_boxes,
    joined,
    logistic,
)


@register("YoloDetectionOutput")
class YoloDetectionOutputLayer(YoloDetectionLayer):
    """A box has the class with the largest soft-max, times the confidence of an object.

    Shapes: see YoloDetectionLayer. Units: anchors in cells of the map.
    """

    num_bottom = between(1, 2)

    def settings(self) -> Any:
        """See YoloDetectionLayer.settings."""
        return self.param.yolo_detection_output_param

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the anchors.

        Raises:
            ProtoError: there are fewer anchors than boxes of a cell.
        """
        super().layer_setup(bottom, top)
        if len(self.anchors) < self.anchors_per_cell:
            raise ProtoError(
                f"{self.label}: {len(self.anchors)} anchors in biases; expected one for each of "
                f"the num_box {self.anchors_per_cell} boxes; add the missing ones"
            )

    def candidates(self, bottom: Blobs, image: int) -> Candidates:
        """See YoloDetectionLayer.candidates."""
        least = float(self.settings().confidence_threshold)
        parts = []
        for blob in bottom:
            cells = self.cells(blob, image)
            anchors = self.anchors[: self.anchors_per_cell]
            height, width = blob.shape[2:]
            decoded = decode_boxes(cells[:, :COORDINATES], anchors, (width, height))
            scores = cells[:, COORDINATES + 1 :]
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            best = scores.argmax(axis=1)
            share = powers.max(axis=1) / powers.sum(axis=1)
            # The order of the source: rows, columns, anchors.
            confidence = (logistic(cells[:, COORDINATES]) * share).transpose(1, 2, 0)
            kept = confidence >= least
            boxes = decoded.transpose(1, 2, 0, 3)[kept]
            parts.append(Candidates(boxes, best.transpose(1, 2, 0)[kept] + 1, confidence[kept]))
        return joined(parts)
