"""Batches from databases; a reader that is left open."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.lmdb_io import Reader
from data_prep.prefetch import BatchReader
from data_prep.read_plan import ReadPlan, default_workers
from data_prep.transform import Scale, Transform
from tests.data_prep.small_images import photograph

ROOT = Path(__file__).resolve().parents[2]

LEAVE_OPEN = """
import sys
from data_prep.lmdb_io import Reader
from data_prep.prefetch import BatchReader
from data_prep.read_plan import ReadPlan
from data_prep.transform import Crop, Transform
source = Reader(sys.argv[1])
reader = BatchReader(ReadPlan(source, Transform((Crop(12),)), 8, shuffle=True, workers=4))
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
    source = Reader(make_db(images, encoded=False))
    with BatchReader(ReadPlan(source, Transform((Scale(0.5),)), 3, workers=2)) as reader:
        batch = reader.read(1, 0, 3)
    assert batch.labels.tolist() == [3, 4, 0]
    expected = np.stack([images[n].transpose(2, 0, 1) for n in (3, 4, 0)]) * np.float32(0.5)
    np.testing.assert_array_equal(batch.data, expected)


def test_default_workers() -> None:
    assert 1 <= default_workers() <= 8
