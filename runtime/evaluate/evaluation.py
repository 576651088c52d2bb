"""Evaluates nets on a set of images: posteriors, errors, and everything they depend on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import text
from prototxt_gen.errors import DataError
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.evaluate.cache import PosteriorCache, file_sha256
from runtime.evaluate.confusion import Matrix, confusion_matrix
from runtime.evaluate.dense import dense_posteriors
from runtime.evaluate.fusion import Posteriors, fuse
from runtime.evaluate.image_source import (
    TestImages,
    open_source,
    preprocessing,
    preprocessing_words,
)
from runtime.evaluate.metrics import ranks
from runtime.evaluate.multicrop import multicrop_posteriors
from runtime.evaluate.pace import log_progress
from runtime.evaluate.protocol import DENSE, EvaluationProtocol
from runtime.evaluate.score_net import ScoreNet
from runtime.evaluate.surgery import crop_form


@dataclass(frozen=True)
class Member:
    """A net with its weights and the protocol by which it is applied."""

    model: Path
    weights: Path
    protocol: EvaluationProtocol


@dataclass(frozen=True)
class Measured:
    """Errors as fractions, and everything they depend on."""

    top1: float
    top5: float
    images: int
    source: str
    members: tuple[dict[str, Any], ...]
    seconds: float
    not_finite: int = 0
    """The number of images with a score of NaN or infinity; the errors are invalid above 0."""
    confusion: Matrix | None = field(default=None, compare=False)
    """Images of every true class by predicted class, (C,C), if `measure` was asked for it."""
    wrong: npt.NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    """Whether the top-1 result of each image is wrong, (N,)."""

    def to_json(self) -> dict[str, Any]:
        """Return all values but those of single images and classes; errors are fractions."""
        return {
            "top1_error": self.top1,
            "top5_error": self.top5,
            "images": self.images,
            "source": self.source,
            "members": list(self.members),
            "seconds": self.seconds,
            "not_finite": self.not_finite,
        }

    def lines(self) -> list[str]:
        """Return the errors in per cent as text, and everything they depend on."""
        lines = [
            f"top-1 error: {100 * self.top1:.2f} %",
            f"top-5 error: {100 * self.top5:.2f} %",
            f"images: {self.images} of {self.source}",
        ]
        for member in self.members:
            lines.append(f"net: {member['net']}, crop {member['crop']} ({member['model']})")
            lines += provenance_lines(member)
        return lines


def provenance_lines(member: dict[str, Any]) -> list[str]:
    """Return the weights, the protocol and the preprocessing of a net as indented lines."""
    return [
        f"  weights: {member.get('weights')}, sha256 {member['weights_sha256']}",
        f"  protocol: {member.get('protocol')}",
        f"  preprocessing: {member.get('preprocessing')}",
    ]


class Evaluator:
    """Evaluates nets on the first `count` images of one source, or on all of them.

    Raises:
        DataError: the source does not exist, or has fewer than `count` images.
    """

    def __init__(
        self,
        source: Path,
        backend: Backend,
        cache: PosteriorCache | None = None,
        count: int | None = None,
        mean_value: Sequence[float] | None = None,
    ) -> None:
        self.source = source
        self._records = open_source(source)
        self.count = len(self._records) if count is None else count
        if not 1 <= self.count <= len(self._records):
            raise DataError(
                f"{source}: {len(self._records)} images; expected a number from 1 to "
                f"{len(self._records)}, got {self.count}; change --images"
            )
        self._backend = backend
        self._cache = cache
        self._mean_value = mean_value
        self._data: str | None = None
        self._checksums: dict[Path, str] = {}

    def posteriors(self, member: Member) -> Posteriors:
        """Return the average over all parts of a member's protocol; cached parts are reused."""
        model = text.read_net(member.model)
        images = TestImages(self._records, preprocessing(model, self._mean_value), self.count)
        nets: dict[bool, ScoreNet] = {}
        try:
            parts = [
                self._part(member, model, images, part, nets) for part in member.protocol.parts()
            ]
        finally:
            for net in nets.values():
                net.close()
        return fuse(parts)

    def measure(self, members: Sequence[Member], confusion: bool = False) -> Measured:
        """Measure the errors of one net, or of several with averaged posteriors.

        Raises:
            VerydeepError: the nets cannot be evaluated, or do not fit the images.
        """
        started = time.monotonic()
        fused = fuse([self.posteriors(member) for member in members])
        return Measured(
            fused.error(1),
            fused.error(5),
            self.count,
            str(self.source),
            tuple(self.describe(member) for member in members),
            round(time.monotonic() - started, 2),
            fused.not_finite,
            confusion_matrix(fused.values, fused.labels, fused.classes) if confusion else None,
            ranks(fused.values, fused.labels) > 0,
        )

    def describe(self, member: Member) -> dict[str, Any]:
        """Return everything that the errors of a member depend on."""
        model = text.read_net(member.model)
        height, width = crop_form(model).crop
        return {
            "net": str(model.name),
            "model": str(member.model),
            "weights": str(member.weights),
            "weights_sha256": self._checksum(member.weights),
            "crop": f"{height}x{width}",
            "kind": member.protocol.kind,
            "scales": list(member.protocol.scales),
            "protocol": member.protocol.describe(),
            "preprocessing": preprocessing_words(preprocessing(model, self._mean_value)),
        }

    def _part(
        self,
        member: Member,
        model: Message,
        images: TestImages,
        part: dict[str, Any],
        nets: dict[bool, ScoreNet],
    ) -> Posteriors:
        if self._cache is None:
            return self._compute(member, model, images, part, nets)
        key = self._key(self._cache, member, model, images, part)
        posteriors = self._cache.load(key)
        if posteriors is None:
            posteriors = self._compute(member, model, images, part, nets)
            self._cache.store(key, posteriors)
        return posteriors

    def _compute(
        self,
        member: Member,
        model: Message,
        images: TestImages,
        part: dict[str, Any],
        nets: dict[bool, ScoreNet],
    ) -> Posteriors:
        dense = part["kind"] == DENSE
        if dense not in nets:
            nets[dense] = ScoreNet(model, member.weights, self._backend, dense)
        net, scale = nets[dense], part["scale"]
        with log_progress(f"{model.name}, {part['kind']}, Q = {scale}") as progress:
            if dense:
                return dense_posteriors(net, images, scale, part["average"], part["flip"], progress)
            return multicrop_posteriors(net, images, scale, part["grid"], part["flip"], progress)

    def _key(
        self,
        cache: PosteriorCache,
        member: Member,
        model: Message,
        images: TestImages,
        part: dict[str, Any],
    ) -> dict[str, Any]:
        if self._data is None:
            self._data = cache.data_fingerprint(self.source, self._records, self.count)
        net = text.to_text(crop_form(model).param)
        return {
            "weights": self._checksum(member.weights),
            "net": hashlib.sha256(net.encode()).hexdigest(),
            "data": self._data,
            "images": self.count,
            "preprocessing": preprocessing_words(images.spec),
            "part": part,
        }

    def _checksum(self, weights: Path) -> str:
        if weights not in self._checksums:
            self._checksums[weights] = file_sha256(weights)
        return self._checksums[weights]
