"""Localisation nets judged by the paper's two protocols. Paper: A.1 and A.2."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.boxes import Corners
from prototxt_gen import text
from runtime.backend.base import Backend
from runtime.evaluate.cache import file_sha256
from runtime.evaluate.dense import dense_posteriors
from runtime.evaluate.flips import default_flip
from runtime.evaluate.fusion import Posteriors, fuse
from runtime.evaluate.image_source import TestImages, preprocessing, preprocessing_words
from runtime.evaluate.pace import watched
from runtime.evaluate.protocol import BEFORE
from runtime.evaluate.score_net import ScoreNet
from runtime.paper.localisation.box_net import BoxNet
from runtime.paper.localisation.merging import APART
from runtime.paper.localisation.overlap import THRESHOLD, box_error, is_right, top_error
from runtime.paper.localisation.prediction import (
    Candidates,
    Labels,
    central_boxes,
    crop_candidates,
    dense_candidates,
    merged_boxes,
)
from runtime.paper.localisation.truth import Truth

log = logging.getLogger("verydeep.localise")

GUESSES = 5
GRID = 3
"""Crops a side where windows are crops."""
DENSE, CROPS = "dense", "crops"


@dataclass(frozen=True)
class BoxMember:
    """A net of boxes, the classification net that it was started from, and test scales."""

    model: Path
    weights: Path
    classifier: Path
    classifier_weights: Path
    scales: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Localised:
    """An error as a fraction, what it depends on, and the box judged of each image (N,4)."""

    error: float
    protocol: str
    members: tuple[dict[str, Any], ...]
    seconds: float
    boxes: Corners

    def to_json(self) -> dict[str, Any]:
        """All but the boxes; the error in per cent."""
        return {
            "error": 100 * self.error,
            "protocol": self.protocol,
            "members": list(self.members),
            "seconds": self.seconds,
        }


class BoxEvaluator:
    """Applies nets to the images of a truth.

    Class posteriors are averaged with the mirrored images if the classification net was trained
    with them. Boxes are predicted from unmirrored images.
    """

    def __init__(self, truth: Truth, backend: Backend) -> None:
        self.truth = truth
        self._backend = backend
        self._posteriors: dict[tuple[str, int], Posteriors] = {}
        self._classes: Labels | None = None
        self._parts: dict[tuple[Path, int, str], Candidates] = {}

    def central(self, member: BoxMember) -> Localised:
        """The first protocol: a central crop at the first scale, the class being given."""
        started, truth, scale = time.monotonic(), self.truth, member.scales[0]
        with BoxNet(member.model, member.weights, self._backend, dense=False) as net:
            height, width = net.crop
            with watched(f"{net.net.name}, central crop, Q = {scale}") as progress:
                boxes = central_boxes(
                    net, self._images(member.model), scale, truth.labels, truth.sizes, progress
                )
        words = (
            f"one central crop of {height}x{width}, Q = {scale}, the box of the true class; "
            f"{self._judged()}"
        )
        return Localised(
            box_error(boxes, truth.boxes),
            words,
            (self.describe(member),),
            _since(started),
            boxes,
        )

    def top_classes(self, members: Sequence[BoxMember]) -> Labels:
        """The five likeliest classes: dense posteriors of the members' classification nets.

        Averaged over their nets and scales; the likeliest first. Shape (N,5), or all classes.
        """
        found = []
        for member in members:
            digest = file_sha256(member.classifier_weights)
            missing = [q for q in member.scales if (digest, q) not in self._posteriors]
            if missing:
                self._classify(member, digest, missing)
            found += [self._posteriors[digest, q] for q in member.scales]
        values = fuse(found).values
        return np.argsort(-values, axis=1, kind="stable")[:, :GUESSES]

    def merged(self, members: Sequence[BoxMember], classes: Labels, windows: str) -> Localised:
        """The second protocol: the union of all members' boxes, merged, for each guessed class.

        With `windows` CROPS the windows are cut out of the image, a grid of them.
        """
        started, truth = time.monotonic(), self.truth
        parts = [part for member in members for part in self._candidates(member, classes, windows)]
        boxes = merged_boxes(parts)
        own = classes == truth.labels[:, None]
        # Where no guess is right the likeliest stands for all, to be looked at.
        judged = boxes[np.arange(len(own)), own.argmax(axis=1)]
        how = "all windows of the whole image" if windows == DENSE else f"a {GRID}x{GRID} grid"
        words = (
            f"{windows}: the boxes of {how}, of {classes.shape[1]} guessed classes; merged while "
            f"closer than {APART:g}, rated by the windows' class posteriors; {self._judged()}"
        )
        return Localised(
            top_error(classes, boxes, truth.labels, truth.boxes),
            words,
            tuple(self.describe(member) for member in members),
            _since(started),
            judged,
        )

    def fixed(self, boxes: Corners, classes: Labels | None = None) -> float:
        """The error of boxes that do not depend on the image, with guessed classes or the true."""
        if classes is None:
            return box_error(boxes, self.truth.boxes)
        same = np.repeat(boxes[:, None], classes.shape[1], axis=1)
        return top_error(classes, same, self.truth.labels, self.truth.boxes)

    def describe(self, member: BoxMember) -> dict[str, Any]:
        """All that a number depends on besides the protocol."""
        model = text.read_net(member.model)
        return {
            "net": str(model.name),
            "model": str(member.model),
            "weights": str(member.weights),
            "weights_sha256": file_sha256(member.weights),
            "classifier_weights": str(member.classifier_weights),
            "classifier_sha256": file_sha256(member.classifier_weights),
            "scales": list(member.scales),
            "images": len(self.truth.labels),
            "preprocessing": preprocessing_words(preprocessing(model)),
        }

    def right(self, boxes: Corners) -> list[bool]:
        """Whether each image's box is right."""
        return [is_right(box, true) for box, true in zip(boxes, self.truth.boxes)]

    def _candidates(self, member: BoxMember, classes: Labels, windows: str) -> list[Candidates]:
        """A part for each scale, computed once; other classes than last time begin anew."""
        if self._classes is None or not np.array_equal(self._classes, classes):
            self._classes, self._parts = classes, {}
        keys = [(member.weights, scale, windows) for scale in member.scales]
        missing = [key for key in keys if key not in self._parts]
        if missing:
            self._windows(member, classes, windows, [scale for _, scale, _ in missing])
        return [self._parts[key] for key in keys]

    def _windows(
        self, member: BoxMember, classes: Labels, windows: str, scales: Sequence[int]
    ) -> None:
        images, sizes, dense = self._images(member.model), self.truth.sizes, windows == DENSE
        param = text.read_net(member.classifier)
        with (
            BoxNet(member.model, member.weights, self._backend, dense) as net,
            ScoreNet(param, member.classifier_weights, self._backend, dense) as rating,
        ):
            for scale in scales:
                with watched(f"{net.net.name}, {windows}, Q = {scale}") as progress:
                    if dense:
                        part = dense_candidates(
                            net, rating, images, scale, classes, sizes, progress
                        )
                    else:
                        part = crop_candidates(
                            net, rating, images, scale, GRID, classes, sizes, progress
                        )
                self._parts[member.weights, scale, windows] = part

    def _classify(self, member: BoxMember, digest: str, scales: Sequence[int]) -> None:
        param = text.read_net(member.classifier)
        images, flip = self._images(member.classifier), default_flip(member.classifier)
        with ScoreNet(param, member.classifier_weights, self._backend, dense=True) as net:
            for scale in scales:
                with watched(f"{net.name}, classes, Q = {scale}") as progress:
                    self._posteriors[digest, scale] = dense_posteriors(
                        net, images, scale, BEFORE, flip, progress
                    )

    def _images(self, model: Path) -> TestImages:
        return TestImages(
            self.truth.images, preprocessing(text.read_net(model)), len(self.truth.labels)
        )

    def _judged(self) -> str:
        return f"right above an intersection over union of {THRESHOLD:g} with any box of the class"


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
