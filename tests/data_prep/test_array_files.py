"""MNIST's and CIFAR-10's files, as Caffe's examples convert them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from data_prep import datum
from data_prep.array_files import convert_cifar, convert_mnist, read_cifar, read_idx
from data_prep.lmdb_io import Reader
from prototxt_gen.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = bytes([7, 0, 9, 3, 3])
CIFAR = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("images").write_bytes(struct.pack(">4I", 2051, 5, 4, 3) + PIXELS.tobytes())
    Path("labels").write_bytes(struct.pack(">2I", 2049, 5) + LABELS)
    Path("cifar").mkdir()
    records = b"".join(bytes([k + 1]) + image.tobytes() for k, image in enumerate(CIFAR))
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        Path("cifar", name).write_bytes(records)


def test_mnist() -> None:
    assert convert_mnist("images", "labels", "db") == 5
    with Reader("db") as reader:
        records = [reader.get(i) for i in range(len(reader))]
        keys = [reader.key_bytes(i) for i in range(len(reader))]
    assert keys == [b"%08d" % i for i in range(5)]
    for record, pixels, label in zip(records, PIXELS, LABELS):
        message = datum.parse(record, "record")
        assert (message.channels, message.height, message.width) == (1, 4, 3)
        assert message.label == label and message.data == pixels.tobytes()


def test_cifar() -> None:
    sizes = convert_cifar("cifar", "out/")
    assert sizes == {"out/cifar10_train_lmdb": 10, "out/cifar10_test_lmdb": 2}
    with Reader("out/cifar10_train_lmdb") as reader:
        assert [reader.key_bytes(i) for i in (0, 9)] == [b"00000", b"00009"]
        message = datum.parse(reader.get(3), "record")
    assert (message.channels, message.height, message.width, message.label) == (3, 32, 32, 2)
    assert message.data == CIFAR[1].tobytes()


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ("labels", "images", r"labels: not an IDX file of this kind; expected the magic number"),
        (
            "images",
            "images",
            r"images: not an IDX file .* the magic number 2049, got 2051",
        ),
        ("none", "labels", r"none: cannot be read: No such file"),
        ("empty", "labels", r"empty: not an IDX file .* got an empty file; uncompress"),
        ("zipped", "labels", r"zipped: not an IDX file .* expected the magic number 2051"),
        ("short", "labels", r"short: 75 bytes; expected 76 by its header"),
        ("huge", "labels", r"huge: 16 bytes; expected \d{20,} by its header"),
        ("images", "fewer", r"fewer: 4 labels for the 5 images of images; expected a label for"),
        ("images", "a\0b", r"cannot be read: embedded null byte"),
        (".", "labels", r"\.: cannot be read: Is a directory"),
    ],
)
def test_idx_files_that_are_not_right(images: str, labels: str, words: str) -> None:
    Path("empty").write_bytes(b"")
    Path("zipped").write_bytes(b"\x1f\x8b\x08" + bytes(40))
    Path("short").write_bytes(Path("images").read_bytes()[:-1])
    Path("huge").write_bytes(struct.pack(">4I", 2051, *[2**32 - 1] * 3))
    Path("fewer").write_bytes(struct.pack(">2I", 2049, 4) + LABELS[:4])
    with pytest.raises(DataError, match=words):
        read_idx(images, labels)


def test_batches_that_are_not_right() -> None:
    Path("cut.bin").write_bytes(bytes(3072))
    with pytest.raises(DataError, match=r"cut.bin: 3072 bytes; expected records of 3073 bytes"):
        read_cifar("cut.bin")
    Path("cifar/test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"cifar/test_batch.bin: cannot be read"):
        convert_cifar("cifar", "out")
    assert not Path("out").exists()
