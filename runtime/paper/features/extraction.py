"""Features of a set of images by one net. Paper: appendix B.

The net without its last fully connected layer is applied to the whole image, its map of activations
averaged over space, and that averaged with the flipped image's. This is done at every scale; the
scales' descriptors are averaged or stacked, and the result has length 1.
"""

from __future__ import annotations

import hashlib
import logging
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
from runtime.evaluate.pace import watched
from runtime.evaluate.score_net import ScoreNet
from runtime.evaluate.surgery import ScoreParam, crop_form
from runtime.paper.features.protocol import (
    Descriptors,
    FeatureProtocol,
    aggregate_scales,
    normalise,
    penultimate,
)

log = logging.getLogger("verydeep.features")

IMAGES, BOXES = "images", "boxes"
"""What a descriptor is of: a whole image, or the inside of one of its boxes."""


class DescriptorCache(ArrayCache):
    """A folder of descriptors, one file a net and scale, before they are aggregated."""

    what: ClassVar[str] = "features"


@dataclass(frozen=True, eq=False)
class Features:
    """Descriptors by name, and all they depend on.

    Shapes: values (N,D), labels (N,), 0 where the source knows none.
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class ImageSet:
    """Images by name; `where` and `regions` say what they are."""

    source: RecordSource
    where: str
    regions: str = IMAGES

    def names(self) -> tuple[str, ...]:
        """The records' keys."""
        return tuple(self.source.key(index) for index in range(len(self.source)))


def descriptors(net: ScoreNet, images: Floats, flip: bool) -> Descriptors:
    """Activations averaged over space and with the flipped image's. Shapes: (N,3,H,W); (N,D)."""
    return flip_average(
        lambda x: np.asarray(net.score_maps(x).mean(axis=(2, 3), dtype=np.float64)), images, flip
    )


class Extractor:
    """Makes features of one set of images, by any net; what was computed before is found."""

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
        """Descriptors of all images, each of length 1.

        Raises:
            ProtoError: the net has no such layer, or no last fully connected one.
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
        attributes |= {"source": self.images.where, "regions": self.images.regions}
        attributes |= {"images": len(names), "dimension": values.shape[1]}
        return Features(names, values.astype(np.float32), labels, attributes)

    def _part(
        self, key: dict[str, Any], net: ScoreNet, images: TestImages, scale: int, flip: bool
    ) -> tuple[Descriptors, npt.NDArray[np.int64]]:
        """Descriptors at one scale, and labels; computed or found."""
        if self._cache is not None:
            found = self._cache.load_arrays(key, "values", "labels")
            if found is not None:
                return found[0].astype(np.float64), found[1]
        with watched(f"{net.name}, features, Q = {scale}") as progress:
            values, labels = dense_rows(
                net, images, scale, lambda batch: descriptors(net, batch, flip), progress
            )
        # As the cache keeps them, so that a second start gives the same bits.
        kept = values.astype(np.float32)
        if self._cache is not None:
            self._cache.store_arrays(key, values=kept, labels=labels)
        return kept.astype(np.float64), labels

    def _key(
        self, form: ScoreParam, checksum: str, spec: Transform, scale: int, flip: bool
    ) -> dict[str, Any]:
        if self._cache is None:
            return {}
        if self._data is None:
            source = self.images.source
            self._data = self._cache.data_fingerprint(Path(self.images.where), source, len(source))
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
