"""Weights in .npz files that are damaged."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import SnapshotError
from runtime.weights.npz import read_npz_weights, write_npz_weights


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def _header_of(dtype: str, shape: str) -> bytes:
    return _header(f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}}}\n")


@pytest.mark.parametrize(
    "member",
    [
        _header("{'descr': '<f4', 'shape': (\n"),
        _header("{1: 2, 'descr': '<f4', 'fortran_order': False, 'shape': ()}\n"),
        _header("(" * 3000),
        _header_of("'<f4'", "(-1,)"),
        _header_of("'<f4'", f"({'9' * 5000},)"),
        _header_of("()", "(1,)"),
        _header_of("'|b1'", "(1,)") + b"\1",
        _header_of("'|O'", "(1,)") + b"\0" * 8,
    ],
    ids=["unfinished", "keys", "nesting", "negative", "digits", "type", "truth", "objects"],
)
def test_damaged_headers_are_refused(member: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ip/0.npy", member)
    with pytest.raises(SnapshotError, match=r"not weights in \.npz form"):
        read_npz_weights(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({10: 8, 24: 0x7FFFFF00}, "declares 2147483392 bytes"),
        ({10: 12}, "compression method 12"),
        ({8: 1}, "is encrypted"),
        ({6: 0x00FF}, "zip file version"),
    ],
    ids=["size", "method", "flags", "version"],
)
def test_damaged_directories_are_refused(
    fields: dict[int, int], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.npz"
    write_npz_weights(path, [("ip", [np.ones(64, np.float32)])])
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    for offset, value in fields.items():
        struct.pack_into("<I" if value >> 16 else "<H", data, entry + offset, value)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(SnapshotError, match=message):
        read_npz_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_file_that_has_changed_is_read_with_the_same_checks(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    write_npz_weights(path, [("ip", [np.ones(64, np.float32)])])
    blob = read_npz_weights(path)["ip"][0]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("ip/0.npy", _header("{'descr': '<f4', 'shape': (\n"))
    with pytest.raises(SnapshotError, match=r"blob 0: not weights in \.npz form"):
        blob.array()
