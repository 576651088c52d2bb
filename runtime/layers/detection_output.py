"""DetectionOutput: the boxes that a detector found. Caffe: SSD's detection_output_layer.cpp."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

_LOG = logging.getLogger("verydeep")
_ROW = 7
"""The numbers of a detection."""


@register("DetectionOutput")
class DetectionOutputLayer(Layer):
    """The detections of each item, after suppression of boxes that overlap a better one.

    Shapes: offsets (N,P*L*4,...), with L = 1, or the classes without share_location; scores
    (N,P*classes,...); priors (1,2,P*4): boxes and variances; top (1,1,R,7): item, class, score, x1,
    y1, x2, y2. Without detections, one row for each item, of -1 after the item.

    Units: coordinates are fractions of the image.
    """

    num_bottom = exactly(3)
    in_place = False

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the parameters.

        Raises:
            ProtoError: a parameter is out of range.
        """
        param = self.param.detection_output_param
        self.classes = int(param.num_classes)
        nms = param.nms_param
        if self.classes < 1 or not nms.nms_threshold >= 0 or not 0 < nms.eta <= 1:
            raise ProtoError(
                f"{self.label}: num_classes is {self.classes}, nms_threshold "
                f"{nms.nms_threshold:g} and eta {nms.eta:g}; expected at least 1, at least 0, and "
                "above 0 and at most 1; correct detection_output_param"
            )
        if param.background_label_id >= self.classes:
            raise ProtoError(
                f"{self.label}: background_label_id is {param.background_label_id}; expected -1 or "
                f"a class below {self.classes}; correct detection_output_param"
            )
        if param.visualize or param.save_file or param.save_output_param.output_directory:
            _LOG.warning(
                "%s: no images and result files are written; visualize, save_file and "
                "save_output_param have no effect",
                self.label,
            )
        self._rows = 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check the bottoms; shape the top as in the last pass.

        Raises:
            ShapeError: the bottoms do not match.
        """
        offsets, scores, priors = (blob.shape for blob in bottom)
        self.locations = 1 if self.param.detection_output_param.share_location else self.classes
        count = bottom[2].count(2) // 4 if len(priors) >= 3 else 0
        expected = (count * self.locations * 4, count * self.classes)
        matches = len(offsets) >= 2 and len(scores) >= 2 and offsets[0] == scores[0] > 0
        matches = matches and count > 0 and priors[:2] == (1, 2) and bottom[2].count(2) == 4 * count
        if not matches or (bottom[0].count(1), bottom[1].count(1)) != expected:
            raise ShapeError(
                f"{self.label}: the bottoms do not match; expected (N,{expected[0]}), "
                f"(N,{expected[1]}) and (1,2,{4 * count}) for {count} priors and {self.classes} "
                f"classes, got {offsets}, {scores} and {priors}; correct the bottoms, their order "
                "or num_classes"
            )
        self.priors = count
        top[0].reshape((1, 1, self._rows, _ROW))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Decode the boxes, select them, and shape the top for them."""
        items = bottom[0].shape[0]
        offsets = bottom[0].data.host().reshape(items, self.priors, self.locations, 4)
        scores = bottom[1].data.host().reshape(items, self.priors, self.classes)
        priors, variances = bottom[2].data.host().reshape(2, self.priors, 1, 4)
        param = self.param.detection_output_param
        if param.variance_encoded_in_target:
            variances = np.ones_like(variances)
        rows = []
        for item in range(items):
            boxes = decode(offsets[item], priors, variances, param.code_type)
            rows += self._detections(item, boxes, scores[item])
        if not rows:
            rows = [(item, *[-1.0] * (_ROW - 1)) for item in range(items)]
        self._rows = len(rows)
        top[0].reshape((1, 1, self._rows, _ROW))
        top[0].data.mutable_host()[...] = np.asarray(rows).reshape(1, 1, -1, _ROW)

    def _detections(self, item: int, boxes: Any, scores: Any) -> list[tuple[float, ...]]:
        """The rows of an item, by class, then by falling score.

        Shapes: boxes (P,L,4); scores (P,classes).
        """
        param = self.param.detection_output_param
        chosen: list[tuple[int, int]] = []
        for label in range(self.classes):
            if label == param.background_label_id:
                continue
            candidates = self._candidates(scores[:, label])
            own = boxes[:, label if self.locations > 1 else 0]
            nms = param.nms_param
            kept = suppress(own[candidates], nms.nms_threshold, nms.eta)
            chosen += [(label, int(candidates[i])) for i in kept]
        if -1 < param.keep_top_k < len(chosen):
            values = np.array([scores[prior, label] for label, prior in chosen])
            best = np.argsort(-values, kind="stable")[: param.keep_top_k]
            chosen = [chosen[i] for i in sorted(best)]
        return [
            (item, label, scores[prior, label], *boxes[prior, label if self.locations > 1 else 0])
            for label, prior in chosen
        ]

    def _candidates(self, scores: Any) -> Any:
        """The priors with scores above the threshold, best first."""
        param = self.param.detection_output_param
        if param.HasField("confidence_threshold"):
            above = np.flatnonzero(scores > param.confidence_threshold)
        else:
            above = np.arange(len(scores))
        order = above[np.argsort(-scores[above], kind="stable")]
        return order[: param.nms_param.top_k] if param.nms_param.top_k > -1 else order

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Refuse.

        Raises:
            ProtoError: a gradient is requested.
        """
        if any(propagate_down):
            raise ProtoError(
                f"{self.label}: detections have no gradient; expected no loss that depends on "
                "them; train with the outputs that they are made from"
            )

    def allow_force_backward(self, bottom_index: int) -> bool:
        """No bottom has a gradient."""
        return False

    @classmethod
    def coupling(cls, param: Any) -> str:
        return "joins the detections of its batch"


def decode(offsets: Any, priors: Any, variances: Any, code: int) -> Any:
    """Boxes from offsets to prior boxes, in an encoding of PriorBoxParameter.CodeType.

    Shapes: offsets (P,L,4); priors and variances (P,1,4); result (P,L,4): x1, y1, x2, y2.
    """
    scaled = offsets * variances
    if code == proto.PriorBoxParameter.CORNER:
        return priors + scaled
    size = priors[..., 2:] - priors[..., :2]
    if code == proto.PriorBoxParameter.CORNER_SIZE:
        return priors + scaled * np.concatenate([size, size], axis=-1)
    center = (priors[..., :2] + priors[..., 2:]) / 2 + scaled[..., :2] * size
    with np.errstate(over="ignore"):
        half = np.exp(scaled[..., 2:]) * size / 2
    return np.concatenate([center - half, center + half], axis=-1)


def suppress(boxes: Any, threshold: float, eta: float = 1.0) -> list[int]:
    """Non-maximum suppression: the indices of the boxes that no kept box before them overlaps.

    A box is dropped if its intersection over union with a kept box is above the threshold. While it
    is above 0.5, the threshold is multiplied by `eta` after each box that is kept.

    Shapes: boxes (B,4): x1, y1, x2, y2, best first.
    """
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas = sides[:, 0] * sides[:, 1]
    kept: list[int] = []
    for index, box in enumerate(boxes):
        if kept:
            others = boxes[kept]
            inner = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
            common = np.where((inner > 0).all(axis=1), inner[:, 0] * inner[:, 1], 0)
            union = np.maximum(areas[kept] + areas[index] - common, np.finfo(boxes.dtype).tiny)
            if (common / union > threshold).any():
                continue
        kept.append(index)
        if eta < 1 and threshold > 0.5:
            threshold *= eta
    return kept
