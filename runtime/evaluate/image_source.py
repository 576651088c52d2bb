"""The images of an evaluation: an LMDB, or the validation list of a folder laid out as ILSVRC's.

They are prepared as training prepares them: BGR, the rescale of data_prep, the mean of the net's
transform_param.
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

from data_prep import datum as datums
from data_prep.datum import rescale_short_side
from data_prep.ilsvrc import open_ilsvrc
from data_prep.image_file import read_image_file
from data_prep.lmdb_io import Reader
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
"""Place in the source, image (3,H,W), label."""
_NO_WORDS = np.zeros(0, np.uint32)
_LAYOUTS = ("val", "ILSVRC2012_img_val", "ILSVRC")
"""Folders by which a data set is told from a database; see data_prep/ilsvrc.py."""


@dataclass(frozen=True)
class ImageFiles:
    """Files and labels of a list, seen as records."""

    root: Path
    entries: Sequence[tuple[str, int]]

    def __len__(self) -> int:
        """Count the images."""
        return len(self.entries)

    def key(self, index: int) -> str:
        """Name the file of a record."""
        return self.entries[index][0]

    def get(self, index: int) -> bytes:
        """Read a file as a serialised encoded Datum.

        Raises:
            DataError: the file cannot be read.
        """
        name, label = self.entries[index]
        data = read_image_file(self.root / name)
        return bytes(datums.from_encoded(data, label).SerializeToString())


def open_source(path: str | os.PathLike[str]) -> RecordSource:
    """Open an LMDB, or the validation list of a folder in ILSVRC-2012's layout.

    Raises:
        DataError: neither is there.
    """
    folder = Path(path)
    if any((folder / name).is_dir() for name in _LAYOUTS):
        opened = open_ilsvrc(folder)
        return ImageFiles(opened.root, opened.val_list())
    return Reader(folder)


def fingerprint(source: RecordSource, count: int) -> str:
    """The sha256 of the first records, keys included: what posteriors of them are filed under."""
    digest = hashlib.sha256()
    for index in range(count):
        record = source.get(index)
        digest.update(f"{source.key(index)}\n{len(record)}\n".encode("utf-8", "surrogateescape"))
        digest.update(record)
    return digest.hexdigest()


def preprocessing(model: Message, mean_value: Sequence[float] | None = None) -> Transform:
    """What a net's TEST data layer does to pixels, less its crop; `mean_value` (B,G,R) overrides.

    Raises:
        ProtoError: the net says nothing of a mean, and neither does the caller.
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
            f"net '{model.name}': it has no transform_param that says which mean to subtract; "
            "expected one in its TEST data layer; give the train_val net, or --mean-value B,G,R "
            "(103.939,116.779,123.68 for the released models)"
        )
    mode = datums.COLOR if transform.mode == datums.NATIVE else transform.mode
    return dataclasses.replace(transform.without(Crop, Mirror, Rescale), mode=mode)


def preprocessing_words(transform: Transform) -> str:
    """What is done to pixels, for people and as a key."""
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
    """The first `count` records of a source, prepared at any short side."""

    __test__ = False

    source: RecordSource
    spec: Transform
    count: int
    workers: int | None = None

    def load(self, index: int, short_side: int) -> Sample:
        """Decode, rescale and subtract the mean.

        Raises:
            DataError: a record that is no image.
        """
        where = f"record {self.source.key(index)}"
        message = datums.parse(self.source.get(index), where)
        image = datums.image_of(message, where, self.spec.mode)
        image = rescale_short_side(image, short_side, where)
        out = np.empty((image.shape[2], *image.shape[:2]), np.float32)
        self.spec.apply(image, _NO_WORDS, out, where)
        return index, out, int(message.label)

    def stream(self, short_side: int) -> Iterator[Sample]:
        """All images in order, a few made ahead by threads."""
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
