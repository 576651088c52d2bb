"""A database of boxes beside one of images: the same keys in the same order, a box a record.

A record is a raw Datum of 4x1x1 floats with the image's label: centre x, centre y, width and height
of the box in pixels of the stored image, as original Caffe's Data layer reads them too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.box_transform import Corners, to_centres, to_corners
from data_prep.boxes import Box, read_boxes
from data_prep.ilsvrc import Entry, Ilsvrc
from data_prep.image_file import read_image_file
from data_prep.image_header import read_header
from data_prep.lmdb_io import Reader, Writer
from data_prep.progress import Progress
from prototxt_gen import proto
from prototxt_gen.errors import DataError

_LOG = logging.getLogger("verydeep.data")
_KEY_DIGITS = 9
"""Keys are `%08d_name`, as convert_imageset writes them."""


def class_boxes(opened: Ilsvrc, entry: Entry) -> list[Box]:
    """The boxes of an image that are of its own class; none where it has no box file.

    Raises:
        DataError: the data set has no boxes of that split, or the file is damaged.
    """
    name, label = entry
    path = opened.boxes_path(name)
    wnid = opened.synsets[label].wnid
    return [] if path is None else [box for box in read_boxes(path) if box.name == wnid]


def with_boxes(opened: Ilsvrc, entries: Sequence[Entry], what: str) -> list[Entry]:
    """The images of a list that have a box of their class; how many have none is logged.

    Raises:
        DataError: none has.
    """
    kept = [entry for entry in entries if class_boxes(opened, entry)]
    if not kept:
        raise DataError(
            f"{opened.root}: none of {len(entries)} {what} images has a box of its class; expected "
            "XML files named as the images; unpack the bounding-box archive of this data set"
        )
    if len(kept) < len(entries):
        _LOG.warning(
            "%s: %d of %d %s images have no box of their class and are left out",
            opened.root,
            len(entries) - len(kept),
            len(entries),
            what,
        )
    return kept


def largest(boxes: Sequence[Box]) -> Box:
    """The box of the largest area, the first of equal ones: what a net is taught."""
    return max(boxes, key=lambda box: (box.xmax - box.xmin) * (box.ymax - box.ymin))


def corners_of(boxes: Sequence[Box]) -> Corners:
    """Boxes as an array. Shape (n,4)."""
    rows = [(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]
    return np.array(rows, np.float64).reshape(-1, 4)


def stored_size(datum: proto.Message, where: str) -> tuple[int, int]:
    """Height and width of the image in a Datum, from its header.

    Raises:
        DataError: the header is not one of an accepted format.
    """
    if not datum.encoded:
        return int(datum.height), int(datum.width)
    header = read_header(datum.data, where)
    return header.height, header.width


def box_record(box: Corners, label: int) -> bytes:
    """A serialised Datum of a box. Shape (4,)."""
    values = to_centres(box).astype(np.float32)
    return bytes(datums.from_array(values.reshape(4, 1, 1), label).SerializeToString())


def read_record(record: bytes, where: str) -> tuple[Corners, int]:
    """The box of a record and its label.

    Raises:
        DataError: it is no record of a box.
    """
    message = datums.parse(record, where)
    if len(message.float_data) != 4:
        raise DataError(
            f"{where}: {len(message.float_data)} numbers; expected a box: centre x, centre y, "
            "width, height; make the database of boxes again"
        )
    return to_corners(np.array(message.float_data, np.float64)), int(message.label)


def write_boxes(
    images: Path, opened: Ilsvrc, database: Path, progress: Progress | None = None
) -> int:
    """Write the boxes of a database of images, which convert_imageset made; returns their number.

    Raises:
        DataError: an image without a box of its class, or the database exists.
    """
    with Reader(images) as reader, Writer(database, resuming="") as writer:
        for index in range(len(reader)):
            key = reader.key(index)
            datum = datums.parse(reader.get(index), f"record {key}")
            name = reader.key_bytes(index)[_KEY_DIGITS:].decode(errors="surrogateescape")
            box = _stored_box(opened, name, datum, f"record {key}")
            writer.put(reader.key_bytes(index), box_record(box, int(datum.label)))
            if progress is not None:
                progress(index + 1, len(reader))
        return len(reader)


def _stored_box(opened: Ilsvrc, name: str, datum: proto.Message, where: str) -> Corners:
    """The box of a stored image, which may be smaller than the file that the XML describes."""
    boxes = class_boxes(opened, (name, int(datum.label)))
    if not boxes:
        raise DataError(
            f"{where}: no box of its class in {opened.root}; expected images with boxes "
            "only; make the database of images again from those"
        )
    height, width = stored_size(datum, where)
    whole_height, whole_width = file_size(opened.root / name)
    scale = np.array([width / whole_width, height / whole_height] * 2)
    scaled: Corners = corners_of([largest(boxes)])[0] * scale
    return scaled


def file_size(path: Path) -> tuple[int, int]:
    """Height and width of an image file.

    Raises:
        DataError: it cannot be read.
    """
    header = read_header(read_image_file(path), str(path))
    return header.height, header.width
