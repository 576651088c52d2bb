"""Databases, created for every test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.lmdb_io import Writer
from tests.data_prep.small_images import record


@pytest.fixture
def make_db(tmp_path: Path) -> Callable[..., Path]:
    """Write a database of serialised Datums or images (H, W, C); labels count up."""

    def make(items: Sequence[bytes | np.ndarray], name: str = "db", encoded: bool = True) -> Path:
        with Writer(tmp_path / name) as writer:
            for number, item in enumerate(items):
                value = item if isinstance(item, bytes) else record(item, number, encoded)
                writer.put(f"{number:08d}_image{number}.jpg".encode(), value)
        return tmp_path / name

    return make
