"""Write the files of MNIST and CIFAR-10 into LMDBs.

Caffe: convert_mnist_data.cpp and convert_cifar_data.cpp, in examples.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_prep.datum import Image, from_array
from data_prep.lmdb_io import Writer
from prototxt_gen.errors import DataError

Sample = tuple[Image, int]
"""An image (C,H,W) of bytes, and its label."""

_IDX_IMAGES, _IDX_LABELS = 2051, 2049
_IDX_IMAGE_HEADER, _IDX_LABEL_HEADER = 16, 8
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32
_CIFAR_SPLITS = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}


def convert_mnist(images: str, labels: str, database: str) -> int:
    """Write the images and labels of two IDX files into a new LMDB; return their number.

    Raises:
        DataError: a file is not what it should be, or the database cannot be written.
    """
    samples = read_idx(images, labels)
    return _write(database, samples, digits=8)


def convert_cifar(source: str, target: str) -> dict[str, int]:
    """Write CIFAR-10's batches of a folder into two new LMDBs; return their sizes by path.

    Raises:
        DataError: a file is not what it should be, or a database cannot be written.
    """
    splits = {
        f"{target.rstrip('/')}/cifar10_{split}_lmdb": [
            read_cifar(str(Path(source, name))) for name in names
        ]
        for split, names in _CIFAR_SPLITS.items()
    }
    return {
        path: _write(path, (sample for batch in batches for sample in batch), digits=5)
        for path, batches in splits.items()
    }


def read_idx(images: str, labels: str) -> list[Sample]:
    """The images and labels of a pair of IDX files.

    Raises:
        DataError: a file is missing, not of this format, or they do not belong together.
    """
    pixels, marks = _read(images), _read(labels)
    _, count, height, width = _header(images, pixels, _IDX_IMAGE_HEADER, _IDX_IMAGES)
    expected = _IDX_IMAGE_HEADER + count * height * width
    _expect_size(images, len(pixels), expected)
    _, label_count = _header(labels, marks, _IDX_LABEL_HEADER, _IDX_LABELS)
    _expect_size(labels, len(marks), _IDX_LABEL_HEADER + label_count)
    if label_count != count:
        raise DataError(
            f"{labels}: {label_count} labels for the {count} images of {images}; expected a label "
            "for each image; give the two files of one set"
        )
    shape = (count, 1, height, width)
    arrays = np.frombuffer(pixels, np.uint8, offset=_IDX_IMAGE_HEADER).reshape(shape)
    return list(zip(arrays, map(int, marks[_IDX_LABEL_HEADER:])))


def read_cifar(path: str) -> list[Sample]:
    """The images and labels of one of CIFAR-10's binary batches.

    Raises:
        DataError: the file is missing, or not whole records.
    """
    content = _read(path)
    if not content or len(content) % _CIFAR_RECORD:
        raise DataError(
            f"{path}: {len(content)} bytes; expected records of {_CIFAR_RECORD} bytes; give the "
            "folder of CIFAR-10's binary version"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _CIFAR_RECORD)
    return [(record[1:].reshape(_CIFAR_SHAPE), int(record[0])) for record in records]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise DataError(
            f"{path}: cannot be read: {reason}; expected an uncompressed file; check the path"
        ) from cause


def _header(path: str, content: bytes, size: int, magic: int) -> tuple[int, ...]:
    whole = min(size, len(content)) // 4 * 4
    values = tuple(int(value) for value in np.frombuffer(content[:whole], ">u4"))
    if len(content) < size or values[0] != magic:
        got = values[0] if values else "an empty file"
        raise DataError(
            f"{path}: not an IDX file of this kind; expected the magic number {magic}, got "
            f"{got}; uncompress the file (gunzip), and give images before labels"
        )
    return values


def _expect_size(path: str, size: int, expected: int) -> None:
    if size != expected:
        raise DataError(
            f"{path}: {size} bytes; expected {expected} by its header; download it again"
        )


def _write(database: str, samples: Iterable[Sample], digits: int) -> int:
    count = 0
    with Writer(database, resuming="") as writer:
        for image, label in samples:
            record = from_array(image, label).SerializeToString()
            writer.put(f"{count:0{digits}d}".encode(), record)
            count += 1
    return count
