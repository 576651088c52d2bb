"""Databases of boxes that belong to databases of images: the same keys, one box for each record.

A record is a raw Datum of 4x1x1 floats with the image's label: centre x, centre y, width and height
of the box in pixels of the stored image. Original Caffe's Data layer reads these databases too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.boxes import Box, Corners, corners_of, to_centres, to_corners
from data_prep.data_set import DataSet, Entry
from data_prep.datum import Floats
from data_prep.image_file import read_header, read_image_file
from data_prep.lmdb_io import Reader, Writer
from data_prep.philox import Words
from data_prep.prefetch import Batch
from data_prep.progress import Progress
from data_prep.read_plan import ReadPlan, RecordSource
from data_prep.transform import Crop, Mirror, Transform
from prototxt_gen import proto
from prototxt_gen.errors import DataError, ProtoError

_LOG = logging.getLogger("verydeep.data")
_KEY_DIGITS = 9
"""Keys are `%08d_name`, as convert_imageset writes them."""


def class_boxes(opened: DataSet, entry: Entry) -> list[Box]:
    """The boxes of an image that are of its own class; empty if it has no boxes.

    Raises:
        DataError: the data set has no boxes of that split, or the file is damaged.
    """
    name, label = entry
    wnid = opened.synsets[label].wnid
    return [box for box in opened.boxes(name) if box.name == wnid]


def with_boxes(opened: DataSet, entries: Sequence[Entry], split: str) -> list[Entry]:
    """The images of a list that have a box of their class; the number of the others is logged.

    `split` is the word for the images in messages.

    Raises:
        DataError: no image has one.
    """
    kept = [entry for entry in entries if class_boxes(opened, entry)]
    if not kept:
        raise DataError(
            f"{opened.root}: none of {len(entries)} {split} images has a box of its class; "
            "expected XML files named as the images; unpack the bounding-box archive of this data "
            "set"
        )
    if len(kept) < len(entries):
        _LOG.warning(
            "%s: %d of %d %s images have no box of their class and are left out",
            opened.root,
            len(entries) - len(kept),
            len(entries),
            split,
        )
    return kept


def largest(boxes: Sequence[Box]) -> Box:
    """The box of the largest area, or the first of several: the one that a net is trained on."""
    return max(boxes, key=lambda box: (box.xmax - box.xmin) * (box.ymax - box.ymin))


def stored_size(datum: proto.Message, name: str) -> tuple[int, int]:
    """Height and width of the image in a Datum, from its header.

    Units: pixels.

    Raises:
        DataError: the image has no accepted format.
    """
    if not datum.encoded:
        return int(datum.height), int(datum.width)
    header = read_header(datum.data, name)
    return header.height, header.width


def box_record(box: Corners, label: int) -> bytes:
    """A serialised Datum of a box. Shapes: box (4,)."""
    values = to_centres(box).astype(np.float32)
    return bytes(datums.from_array(values.reshape(4, 1, 1), label).SerializeToString())


def read_record(record: bytes, name: str) -> tuple[Corners, int]:
    """The box of a record and its label.

    Shapes: box (4,).

    Raises:
        DataError: the record is not that of a box.
    """
    message = datums.parse(record, name)
    if len(message.float_data) != 4:
        raise DataError(
            f"{name}: {len(message.float_data)} numbers; expected a box: centre x, centre y, "
            "width, height; make the database of boxes again"
        )
    return to_corners(np.array(message.float_data, np.float64)), int(message.label)


def write_boxes(
    images: Path, opened: DataSet, database: Path, progress: Progress | None = None
) -> int:
    """Write the boxes of a database of images of convert_imageset; returns their number.

    Raises:
        DataError: an image has no box of its class, or the database exists.
    """
    with Reader(images) as reader, Writer(database, resuming="") as writer:
        writer.begin()
        for index in range(len(reader)):
            key = reader.key(index)
            datum = datums.parse(reader.get(index), f"record {key}")
            name = reader.key_bytes(index)[_KEY_DIGITS:].decode(errors="surrogateescape")
            box = _stored_box(opened, name, datum, f"record {key}")
            writer.put(reader.key_bytes(index), box_record(box, int(datum.label)))
            if progress is not None:
                progress(index + 1, len(reader))
        return len(reader)


def _stored_box(opened: DataSet, name: str, datum: proto.Message, label: str) -> Corners:
    """The box of a stored image, which may be smaller than the file that the XML is about."""
    boxes = class_boxes(opened, (name, int(datum.label)))
    if not boxes:
        raise DataError(
            f"{label}: no box of its class in {opened.root}; expected images with boxes "
            "only; make the database of images again from those"
        )
    height, width = stored_size(datum, label)
    file_height, file_width = file_size(opened.root / name)
    scale = np.array([width / file_width, height / file_height] * 2)
    scaled: Corners = corners_of([largest(boxes)])[0] * scale
    return scaled


def file_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file.

    Units: pixels.

    Raises:
        DataError: it cannot be read.
    """
    header = read_header(read_image_file(path), str(path))
    return header.height, header.width


class BoxReader:
    """Reads boxes as centre x, centre y, width, height in pixels of the crops of their images.

    The image and its box are transformed alike on every shard, because both transforms depend on
    the sample number only. `own` is the transform of the layer of boxes:
    value = (pixels - mean) * scale.

    Raises:
        ProtoError: there are no images, or `own` crops or mirrors.
        DataError: the numbers of boxes and of images differ.
    """

    shape = (4, 1, 1)
    wait_seconds = 0.0

    def __init__(
        self, source: RecordSource, images: ReadPlan | None, own: Transform, name: str
    ) -> None:
        if images is None:
            raise ProtoError(
                f"{name}: boxes without images; expected a Data layer of images before the layer "
                "of boxes, got none; change the order, or leave `boxes` out of the sidecar"
            )
        if own.find(Crop) or own.find(Mirror):
            raise ProtoError(
                f"{name}: crop_size or mirror for boxes; expected a transform_param with "
                "mean_value and scale at most; remove them: boxes are cropped and mirrored as "
                "their images"
            )
        if len(source) != len(images.source):
            raise DataError(
                f"{name}: {len(source)} boxes for {len(images.source)} images; expected one for "
                "each; make both databases again from one list"
            )
        self._source, self._images, self._own = source, images, own

    def sizes_vary(self, count: int) -> bool:
        """Whether batches differ in shape: never."""
        return False

    def read(self, iteration: int, first: int, count: int) -> Batch:
        """Read boxes first .. first+count-1 of an iteration.

        Shapes: data (count, 4, 1, 1), labels (count,).

        Raises:
            DataError: a record is not a box, or not the box of its image.
        """
        batch = Batch.empty(count, self.shape)
        records, words = self._images.samples(iteration, first, count)
        for row, record in enumerate(records):
            batch.labels[row] = self._load(record, words[row], batch.data[row])
        return batch

    def _load(self, record: int, words: Words, out: Floats) -> int:
        key = self._source.key(record)
        name = f"record {key}"
        image_key = self._images.source.key(record)
        if key != image_key:
            raise DataError(
                f"{name}: in the place of the image {image_key}; expected its box, with the same "
                "key; make both databases again from one list"
            )
        box, label = read_record(self._source.get(record), name)
        datum = datums.parse(self._images.source.get(record), name)
        placement = self._images.transform.placement(*stored_size(datum, name), words)
        values = to_centres(placement.to_crop(box)).astype(np.float32).reshape(1, 1, 4)
        self._own.apply(values, words, out, name)
        return label

    def recycle(self, batch: Batch) -> None:
        """Do nothing: batches of boxes are small."""

    def close(self) -> None:
        """Do nothing: the database is closed with its last reader."""
