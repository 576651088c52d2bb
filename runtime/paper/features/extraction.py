"""Features of a set of images by one net. Paper: appendix B.

The net without its last fully connected layer is applied to the whole image, and its activations
are averaged over space and with those of the mirrored image. The descriptors of all scales are
averaged or stacked, and scaled to length 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from data_prep.read_plan import RecordSource
from data_prep.transform import Transform
from prototxt_gen import text
from prototxt_gen.proto import Message
from runtime.backend.base import Backend
from runtime.evaluate.cache import ArrayCache, file_sha256
from runtime.evaluate.dense import dense_rows, flip_average
from runtime.evaluate.image_source import (
    Floats,
    TestImages,
    preprocessing,
    preprocessing_words,
)
from runtime.evaluate.pace import log_progress
from runtime.evaluate.score_net import ScoreNet
from runtime.evaluate.surgery import ScoreParam, crop_form
from runtime.paper.features.protocol import (
    Descriptors,
    FeatureProtocol,
    aggregate_scales,
    normalise,
    penultimate,
)

IMAGES, BOXES = "images", "boxes"
"""The region of a descriptor: a whole image, or the inside of a box."""


class DescriptorCache(ArrayCache):
    """A folder of descriptors at single scales, one file for each net and scale."""

    content: ClassVar[str] = "features"


@dataclass(frozen=True, eq=False)
class Features:
    """Descriptors by name, and everything they depend on.

    Shapes: values (N,D), labels (N,), 0 if the source has no labels.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ImageSet:
    """Images by name; `path` is their data set, `regions` is IMAGES or BOXES."""

    source: RecordSource
    path: str
    regions: str = IMAGES

    def names(self) -> tuple[str, ...]:
        """Return the keys of the records."""
        return tuple(self.source.key(index) for index in range(len(self.source)))


def descriptors(net: ScoreNet, images: Floats, flip: bool) -> Descriptors:
    """Return activations averaged over space, and with the mirrored images if `flip`.

    Shapes: images (N,3,H,W); result (N,D).
    """
    return flip_average(
        lambda x: np.asarray(net.score_maps(x).mean(axis=(2, 3), dtype=np.float64)), images, flip
    )


class Extractor:
    """Extracts features of one set of images with any net; cached scales are reused."""

    def __init__(
        self,
        images: ImageSet,
        backend: Backend,
        cache: DescriptorCache | None = None,
        mean_value: Sequence[float] | None = None,
    ) -> None:
        self.images = images
        self._backend = backend
        self._cache = cache
        self._mean_value = mean_value
        self._data: str | None = None

    def extract(self, model: Path, weights: Path, protocol: FeatureProtocol) -> Features:
        """Extract the descriptors of all images, each of length 1.

        Raises:
            ProtoError: the net has no blob `protocol.layer`, or does not end in a fully connected
                layer.
            ShapeError: a scale is below the net's crop.
            DataError: an image cannot be used.
            SnapshotError: the weights do not fit the net.
        """
        param = text.read_net(model)
        layer = protocol.layer or penultimate(param)
        form = crop_form(param, layer)
        spec = preprocessing(param, self._mean_value)
        images = TestImages(self.images.source, spec, len(self.images.source))
        checksum = file_sha256(weights)
        parts: list[Descriptors] = []
        with ScoreNet(param, weights, self._backend, dense=True, top=layer) as net:
            for scale in protocol.scales:
                key = self._key(form, checksum, spec, scale, protocol.flip)
                values, labels = self._part(key, net, images, scale, protocol.flip)
                parts.append(values)
        names = self.images.names()
        values = normalise(aggregate_scales(parts, protocol.aggregate), names)
        attributes = _attributes(param, form, spec, protocol)
        attributes |= {"model": str(model), "weights": str(weights), "weights_sha256": checksum}
        attributes |= {"source": self.images.path, "regions": self.images.regions}
        attributes |= {"images": len(names), "dimension": values.shape[1]}
        return Features(names, values.astype(np.float32), labels, attributes)

    def _part(
        self, key: dict[str, Any], net: ScoreNet, images: TestImages, scale: int, flip: bool
    ) -> tuple[Descriptors, npt.NDArray[np.int64]]:
        """Return the descriptors at one scale, and the labels; from the cache if possible."""
        if self._cache is not None:
            cached = self._cache.load_arrays(key, "values", "labels")
            if cached is not None:
                return cached[0].astype(np.float64), cached[1]
        with log_progress(f"{net.name}, features, Q = {scale}") as progress:
            values, labels = dense_rows(
                net, images, scale, lambda batch: descriptors(net, batch, flip), progress
            )
        # Rounded as in the cache, so that a second run gives the same bits.
        rounded = values.astype(np.float32)
        if self._cache is not None:
            self._cache.store_arrays(key, values=rounded, labels=labels)
        return rounded.astype(np.float64), labels

    def _key(
        self, form: ScoreParam, checksum: str, spec: Transform, scale: int, flip: bool
    ) -> dict[str, Any]:
        if self._cache is None:
            return {}
        if self._data is None:
            source = self.images.source
            self._data = self._cache.data_fingerprint(Path(self.images.path), source, len(source))
        return {
            "weights": checksum,
            "net": hashlib.sha256(text.to_text(form.param).encode()).hexdigest(),
            "layer": form.scores,
            "data": self._data,
            "preprocessing": preprocessing_words(spec),
            "scale": scale,
            "flip": flip,
        }


def _attributes(
    model: Message, form: ScoreParam, spec: Transform, protocol: FeatureProtocol
) -> dict[str, Any]:
    return {
        "net": str(model.name),
        "layer": form.scores,
        "crop": f"{form.crop[0]}x{form.crop[1]}",
        "scales": list(protocol.scales),
        "aggregate": protocol.aggregate,
        "flip": protocol.flip,
        "protocol": protocol.describe(),
        "preprocessing": preprocessing_words(spec),
    }
