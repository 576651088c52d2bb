"""Batches from databases and from JPEGs decoded small; a reader that is left open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep import datum
from data_prep.lmdb_io import Reader
from data_prep.prefetch import BatchReader, default_workers
from data_prep.sampler import make_sampler
from data_prep.transform import TransformSpec
from tests.data_prep.small_images import Records, jpeg, photograph

ROOT = Path(__file__).resolve().parents[2]

LEAVE_OPEN = """
import sys
from data_prep.lmdb_io import Reader
from data_prep.prefetch import BatchReader
from data_prep.sampler import make_sampler
from data_prep.transform import TransformSpec
source = Reader(sys.argv[1])
spec = TransformSpec(train=True, crop_size=12)
reader = BatchReader(source, 8, spec, make_sampler(len(source), True, 0), workers=4)
reader.read(0, 0, 8)
print("read")
"""


def test_the_interpreter_ends_with_a_reader_left_open(make_db: Callable[..., Path]) -> None:
    path = make_db([photograph(40, 40, n) for n in range(30)])
    done = subprocess.run(
        [sys.executable, "-c", LEAVE_OPEN, str(path)],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "read\n", "")


def test_from_a_database(make_db: Callable[..., Path]) -> None:
    images = [photograph(10, 12, n) for n in range(5)]
    with Reader(make_db(images, encoded=False)) as source:
        spec = TransformSpec(scale=0.5)
        with BatchReader(source, 3, spec, make_sampler(5, False, 0), workers=2) as reader:
            data, labels = reader.read(1, 0, 3)
    assert labels.tolist() == [3, 4, 0]
    expected = np.stack([images[n].transpose(2, 0, 1) for n in (3, 4, 0)]) * np.float32(0.5)
    np.testing.assert_array_equal(data, expected)


def test_a_quick_decode_is_close_and_big_enough() -> None:
    image = photograph(128, 160)
    source = Records([datum.from_encoded(jpeg(image), 0).SerializeToString()])
    batches = []
    for reduced in (False, True):
        spec = TransformSpec(
            crop_size=28, short_side=(30, 30), mode=datum.COLOR, reduced_decode=reduced
        )
        with BatchReader(source, 1, spec, make_sampler(1, False, 0), workers=0) as reader:
            batches.append(reader.read(0, 0, 1)[0])
    difference = np.abs(batches[0] - batches[1])
    assert 0 < difference.mean() < 4


def test_default_workers() -> None:
    assert 1 <= default_workers() <= 8
