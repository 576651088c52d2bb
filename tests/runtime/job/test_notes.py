"""Notes that the main job reads again: a mean pixel that was edited by hand, or damaged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prototxt_gen.errors import DataError
from runtime.job.prepare import _noted_mean


@pytest.mark.parametrize(
    "content",
    [
        b'{"mean_pixel": [104.0, 117.0, 123.5]}',
        b'\xef\xbb\xbf{\r\n"mean_pixel":\t[104, 117, 123.5]\r\n}\r\n',
    ],
)
def test_a_mean_pixel(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.json").write_bytes(content)
    assert _noted_mean(tmp_path / "note.json") == [104.0, 117.0, 123.5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"mean_pixel": [1, 2]}',
        b'{"mean_pixel": [1, 2, NaN]}',
        b'{"mean_pixel": [1, 2, true]}',
        b'{"mean_pixel": [1, 2, "3"]}',
        b'{"mean_pixel": [1, 2, 1e999]}',
        b'{"mean_pixel": 5}',
        b'{"mean_pixel": [1, 2, ' + b"9" * 5000 + b"]}",
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=lambda content: repr(content[:30]),
)
def test_no_mean_pixel(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "note.json").write_bytes(content)
    with pytest.raises(DataError, match=r"note\.json: .*; delete it to "):
        _noted_mean(tmp_path / "note.json")


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "note.json")
    with pytest.raises(DataError, match=r"note\.json: cannot be read: "):
        _noted_mean(tmp_path / "note.json")
