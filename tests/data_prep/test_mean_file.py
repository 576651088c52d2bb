"""Mean images in .binaryproto files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.mean_file import read_mean, write_mean
from prototxt_gen import proto
from prototxt_gen.errors import DataError


def test_round_trip_in_the_old_form(tmp_path: Path) -> None:
    mean = np.arange(24, dtype=np.float64).reshape(2, 3, 4) / 7
    write_mean(tmp_path / "m.binaryproto", mean)
    blob = proto.BlobProto.FromString((tmp_path / "m.binaryproto").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 2, 3, 4)
    np.testing.assert_array_equal(read_mean(tmp_path / "m.binaryproto"), mean.astype(np.float32))


@pytest.mark.parametrize("dims", [(2, 3, 4), (1, 2, 3, 4)])
@pytest.mark.parametrize("field", ["data", "double_data"])
def test_the_new_forms(tmp_path: Path, dims: tuple[int, ...], field: str) -> None:
    blob = proto.BlobProto()
    blob.shape.dim.extend(dims)
    getattr(blob, field).extend(range(24))
    (tmp_path / "m").write_bytes(blob.SerializeToString())
    np.testing.assert_array_equal(read_mean(tmp_path / "m"), np.arange(24).reshape(2, 3, 4))


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"absent: cannot be read: No such file.*; expected .*verydeep"
    ):
        read_mean(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match=f"{path}: cannot be read: .*; expected a regular file"):
            read_mean(path)
    (tmp_path / "bad").write_bytes(b"\xff\xff\xff")
    with pytest.raises(DataError, match=r"bad: .*BlobProto"):
        read_mean(tmp_path / "bad")
    forged = proto.BlobProto(num=1, channels=3, height=1 << 30, width=1 << 30, data=[1.0])
    (tmp_path / "forged").write_bytes(forged.SerializeToString())
    with pytest.raises(DataError, match=r"forged: shape and numbers disagree; expected .* got 1;"):
        read_mean(tmp_path / "forged")
    several = proto.BlobProto(num=2, channels=1, height=1, width=1, data=[1.0, 2.0])
    (tmp_path / "several").write_bytes(several.SerializeToString())
    with pytest.raises(DataError, match=r"several: a blob of shape \(2, 1, 1, 1\); expected one"):
        read_mean(tmp_path / "several")
