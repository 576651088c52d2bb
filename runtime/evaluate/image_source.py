"""The images of an evaluation: an LMDB, or the held-out images of a data set.

Images are prepared as in training: BGR, rescaled by data_prep, with the mean of the net's
transform_param subtracted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_prep import data_set
from data_prep import datum as datums
from data_prep.datum import rescale_short_side
from data_prep.image_files import ImageFiles as ImageFiles
from data_prep.image_files import open_records
from data_prep.open_data_set import is_data_set, open_data_set
from data_prep.read_plan import RecordSource, default_workers
from data_prep.transform import (
    Crop,
    MeanImage,
    MeanValues,
    Mirror,
    Rescale,
    Transform,
)
from data_prep.transform_step import Settings
from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto import Message

Floats = npt.NDArray[np.float32]
Sample = tuple[int, Floats, int]
"""Index in the source, image (3,H,W), label."""
_NO_WORDS = np.zeros(0, np.uint32)


def open_source(path: str | os.PathLike[str]) -> RecordSource:
    """Open an LMDB, or the held-out images of a data set in any layout.

    Raises:
        DataError: neither exists.
    """
    return open_records(path, train=False)


def class_names(path: str | Path) -> tuple[str, ...] | None:
    """Return the names of the classes of a data set; None for an LMDB.

    Raises:
        DataError: the data set is incomplete.
    """
    return data_set.class_names(open_data_set(path)) if is_data_set(path) else None


def fingerprint(source: RecordSource, count: int) -> str:
    """Return the sha256 of the first `count` records and their keys."""
    digest = hashlib.sha256()
    for index in range(count):
        record = source.get(index)
        digest.update(f"{source.key(index)}\n{len(record)}\n".encode("utf-8", "surrogateescape"))
        digest.update(record)
    return digest.hexdigest()


def preprocessing(model: Message, mean_value: Sequence[float] | None = None) -> Transform:
    """Return the transformation of a net's TEST data layer, without its crop and rescale.

    `mean_value` (B,G,R) replaces the mean of the net.

    Raises:
        ProtoError: neither the net nor the caller gives a mean.
    """
    transform: Transform | None = None
    for layer in model.layer:
        phases = [rule.phase for rule in layer.include if rule.HasField("phase")]
        if layer.HasField("transform_param") and proto.TRAIN not in phases:
            settings = Settings(layer.transform_param, train=False, name=str(layer.name))
            transform = Transform.read(settings)
            break
    if mean_value is not None:
        values = tuple(float(value) for value in mean_value)
        transform = (transform or Transform()).without(MeanValues, MeanImage)
        transform = dataclasses.replace(transform, steps=(MeanValues(values), *transform.steps))
    if transform is None:
        raise ProtoError(
            f"net '{model.name}': no transform_param with the mean to subtract; expected one in "
            "its TEST data layer; give the train_val net, or --mean-value B,G,R "
            "(103.939,116.779,123.68 for the released models)"
        )
    mode = datums.COLOR if transform.mode == datums.NATIVE else transform.mode
    return dataclasses.replace(transform.without(Crop, Mirror, Rescale), mode=mode)


def preprocessing_words(transform: Transform) -> str:
    """Return the transformation of pixels in words, which are also part of cache keys."""
    image, values = transform.find(MeanImage), transform.find(MeanValues)
    mean = "none" if values is None else ", ".join(f"{value:g}" for value in values.values)
    if image is not None:
        mean = f"image {hashlib.sha256(image.mean.tobytes()).hexdigest()[:16]}"
    words = [f"{transform.mode}, BGR, mean {mean}"]
    if transform.scale != 1.0:
        words.append(f"scale {transform.scale:g}")
    return ", ".join(words)


@dataclass(frozen=True, eq=False)
class TestImages:
    """The first `count` records of a source, prepared at any scale."""

    __test__ = False

    source: RecordSource
    spec: Transform
    count: int
    workers: int | None = None

    def load(self, index: int, short_side: int) -> Sample:
        """Decode a record, rescale the image and subtract the mean. Units: pixels.

        Raises:
            DataError: the record is not an image.
        """
        key = f"record {self.source.key(index)}"
        message = datums.parse(self.source.get(index), key)
        image = datums.image_of(message, key, self.spec.mode)
        image = rescale_short_side(image, short_side, key)
        out = np.empty((image.shape[2], *image.shape[:2]), np.float32)
        self.spec.apply(image, _NO_WORDS, out, key)
        return index, out, int(message.label)

    def stream(self, short_side: int) -> Iterator[Sample]:
        """Yield all images in order; threads prepare some in advance."""
        workers = self.workers or default_workers()
        waiting: deque[Future[Sample]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            try:
                for index in range(self.count):
                    waiting.append(pool.submit(self.load, index, short_side))
                    if len(waiting) > 4 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()
