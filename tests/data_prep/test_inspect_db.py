"""The summary of a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep import datum
from data_prep.inspect_db import inspect
from data_prep.lmdb_io import Reader
from tests.data_prep.small_images import jpeg, photograph, record


def test_a_mixed_database(make_db: Callable[..., Path]) -> None:
    half = jpeg(photograph(50, 50))
    damaged = bytearray(datum.encode(photograph(50, 50), "png", 95, "k"))
    damaged[100:120] = bytes(20)
    values = [
        record(photograph(20, 30), 4),
        record(photograph(20, 30), 4, encoded=False),
        datum.from_array(np.zeros((1, 5, 6), np.float32), 2).SerializeToString(),
        datum.from_encoded(bytes(damaged), 9).SerializeToString(),
        datum.from_encoded(b"nothing", 9).SerializeToString(),
        datum.from_encoded(half[: len(half) // 2], 9).SerializeToString(),
    ]
    with Reader(make_db(values)) as reader:
        quick, thorough = inspect(reader), inspect(reader, decode=True)
    assert quick.records == 6
    assert quick.value_bytes == sum(map(len, values))
    assert quick.first_keys == [f"0000000{n}_image{n}.jpg" for n in range(3)]
    assert quick.sizes == {(3, 20, 30): 2, (1, 5, 6): 1, (3, 50, 50): 1}
    assert quick.encodings == {"jpeg": 1, "png": 1, "raw": 1, "float": 1}
    assert quick.labels == {4: 2, 2: 1, 9: 1}
    assert len(quick.problems) == 2
    assert "record 00000004_image4.jpg: the image does not decode" in quick.problems[0]
    assert len(thorough.problems) == 3
    assert thorough.labels == {4: 2, 2: 1}
    found = quick.as_dict()
    assert (found["height"], found["width"], found["channels"]) == ([5, 50], [6, 50], [1, 3])
    assert found["labels"] == {"2": 1, "4": 2, "9": 1}
