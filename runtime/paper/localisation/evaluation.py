"""Evaluates localisation nets by the paper's two protocols. Paper: A.1 and A.2."""

from __future__ import annotations

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
from runtime.evaluate.pace import log_progress
from runtime.evaluate.protocol import BEFORE
from runtime.evaluate.score_net import ScoreNet
from runtime.paper.localisation.box_net import BoxNet
from runtime.paper.localisation.merging import MERGE_DISTANCE
from runtime.paper.localisation.overlap import (
    THRESHOLD,
    Correct,
    correct_boxes,
    correct_guesses,
    error_of,
)
from runtime.paper.localisation.prediction import (
    Candidates,
    Labels,
    central_boxes,
    crop_candidates,
    dense_candidates,
    merged_boxes,
)
from runtime.paper.localisation.truth import Truth

GUESSES = 5
GRID = 3
"""The number of crops per side if windows are crops."""
DENSE, CROPS = "dense", "crops"
_CRITERION = f"right above an intersection over union of {THRESHOLD:g} with any box of the class"


@dataclass(frozen=True)
class BoxMember:
    """A localisation net, the classification net that it was started from, and test scales.

    Units: `scales` are short sides in pixels.
    """

    model: Path
    weights: Path
    classifier: Path
    classifier_weights: Path
    scales: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Localised:
    """The measured boxes of a row, and everything that they depend on.

    `boxes` has a box for each image: that of the true class if it was guessed, else that of the
    most likely class.

    Shapes: correct (N,), boxes (N,4). Units: boxes in pixels of the files.
    """

    correct: Correct
    boxes: Corners
    protocol: str
    members: tuple[dict[str, Any], ...]
    seconds: float

    @property
    def error(self) -> float:
        """The fraction of images that are not correct."""
        return error_of(self.correct)

    def to_json(self) -> dict[str, Any]:
        """Return the values without the boxes. Units: the error in per cent."""
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
        """Evaluate by the first protocol: a central crop at the first scale, given the class."""
        started, truth, scale = time.monotonic(), self.truth, member.scales[0]
        with BoxNet(member.model, member.weights, self._backend, dense=False) as net:
            height, width = net.crop
            with log_progress(f"{net.name}, central crop, Q = {scale}") as progress:
                boxes = central_boxes(
                    net, self._images(member.model), scale, truth.labels, truth.sizes, progress
                )
        protocol = (
            f"one central crop of {height}x{width}, Q = {scale}, the box of the true class; "
            f"{_CRITERION}"
        )
        correct = correct_boxes(boxes, truth.boxes)
        return Localised(correct, boxes, protocol, (self.describe(member),), _since(started))

    def top_classes(self, members: Sequence[BoxMember]) -> Labels:
        """Return the five most likely classes by dense posteriors of the classification nets.

        Posteriors are averaged over nets and scales; the most likely class comes first.

        Shapes: result (N,5), or (N,C) for fewer classes.
        """
        posteriors = []
        for member in members:
            digest = file_sha256(member.classifier_weights)
            missing = [q for q in member.scales if (digest, q) not in self._posteriors]
            if missing:
                self._classify(member, digest, missing)
            posteriors += [self._posteriors[digest, q] for q in member.scales]
        values = fuse(posteriors).values
        return np.argsort(-values, axis=1, kind="stable")[:, :GUESSES]

    def merged(self, members: Sequence[BoxMember], classes: Labels, windows: str) -> Localised:
        """Evaluate by the second protocol: all members' boxes, merged, for each guessed class.

        The windows are those of the dense net, or a grid of crops with `windows` CROPS.

        Shapes: classes (N,k).
        """
        started, truth = time.monotonic(), self.truth
        parts = [part for member in members for part in self._candidates(member, classes, windows)]
        boxes = merged_boxes(parts)
        guessed = classes == truth.labels[:, None]
        # argmax of a row without the true class is 0: the most likely class.
        shown = boxes[np.arange(len(guessed)), guessed.argmax(axis=1)]
        source = "all windows of the whole image" if windows == DENSE else f"a {GRID}x{GRID} grid"
        protocol = (
            f"{windows}: the boxes of {source}, of {classes.shape[1]} guessed classes; merged up "
            f"to a distance of {MERGE_DISTANCE:g}, rated by the windows' class posteriors; "
            f"{_CRITERION}"
        )
        return Localised(
            correct_guesses(classes, boxes, truth.labels, truth.boxes),
            shown,
            protocol,
            tuple(self.describe(member) for member in members),
            _since(started),
        )

    def error_of_fixed(self, boxes: Corners, classes: Labels | None = None) -> float:
        """Return the error of boxes that are the same for all guessed classes.

        Shapes: boxes (N,4), classes (N,k), None for the true classes.
        """
        if classes is None:
            return error_of(correct_boxes(boxes, self.truth.boxes))
        same = np.repeat(boxes[:, None], classes.shape[1], axis=1)
        return error_of(correct_guesses(classes, same, self.truth.labels, self.truth.boxes))

    def describe(self, member: BoxMember) -> dict[str, Any]:
        """Return everything that an error depends on, except the protocol."""
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

    def _candidates(self, member: BoxMember, classes: Labels, windows: str) -> list[Candidates]:
        """Return the candidates of each scale, from memory if the classes are the same."""
        if self._classes is None or not np.array_equal(self._classes, classes):
            self._classes, self._parts = classes, {}
        keys = [(member.weights, scale, windows) for scale in member.scales]
        missing = [key for key in keys if key not in self._parts]
        if missing:
            self._predict(member, classes, windows, [scale for _, scale, _ in missing])
        return [self._parts[key] for key in keys]

    def _predict(
        self, member: BoxMember, classes: Labels, windows: str, scales: Sequence[int]
    ) -> None:
        images, sizes, dense = self._images(member.model), self.truth.sizes, windows == DENSE
        param = text.read_net(member.classifier)
        with (
            BoxNet(member.model, member.weights, self._backend, dense) as net,
            ScoreNet(param, member.classifier_weights, self._backend, dense) as rating,
        ):
            for scale in scales:
                with log_progress(f"{net.name}, {windows}, Q = {scale}") as progress:
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
                with log_progress(f"{net.name}, classes, Q = {scale}") as progress:
                    self._posteriors[digest, scale] = dense_posteriors(
                        net, images, scale, BEFORE, flip, progress
                    )

    def _images(self, model: Path) -> TestImages:
        return TestImages(
            self.truth.images, preprocessing(text.read_net(model)), len(self.truth.labels)
        )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)
