"""Arrays from .npz files: their headers are compared with their contents."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from prototxt_gen.errors import DataError
from runtime.core.npz_arrays import read_arrays
from runtime.evaluate.cache import PosteriorCache

VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


def _header(descr: str, shape: str, version: int = 1) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(text)) + text


def _write(path: Path, member: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("values.npy", member)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_all_kinds(save: object, tmp_path: Path) -> None:
    arrays = {
        "values": np.asfortranarray(VALUES),
        "names": np.array(["a", "b\u4e2d"]),
        "flags": np.array([True, False]),
        "text": np.array("one"),
        "none": np.zeros((0, 5), np.int64),
    }
    save(tmp_path / "x.npz", **arrays)  # type: ignore[operator]
    found = read_arrays(tmp_path / "x.npz", *arrays)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert [array.dtype for array in found.values()] == [a.dtype for a in arrays.values()]
    with pytest.raises(ValueError, match=r"no item named 'other\.npy'"):
        read_arrays(tmp_path / "x.npz", "other")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (_header("'<f4'", "(1000000000000,)"), "bytes, 4000000000128 expected"),
        (_header("'<f4'", "(4, 3)") + b"\0" * 20, "148 bytes, 176 expected"),
        (_header("'<f4'", "(4, 3)") + b"\0" * 99, "bytes, 176 expected"),
        (_header("'<f4'", "(-1, 3)"), "an array"),
        (_header("'<U1000000000'", "(1,)"), "not a valid dtype|4000000128 expected"),
        (_header("'|O'", "(1,)") + b"\0" * 8, "an array .* of object"),
        (_header("[('a', '<f4')]", "(1,)") + b"\0" * 4, "an array"),
        (_header("'<f4'", "(" * 3000), "Cannot parse header|Error"),
        (_header("'<f4'", f"({'9' * 5000},)"), "Error|header"),
        (_header("'<f4'", "(1,)", version=9), "version"),
        (_header("'<U1'", "(2,)") + b"a\0\0\0\0\0\x11\0", "invalid Unicode characters"),
        (_header("'>U1'", "()") + b"\xff\0\0\0", "invalid Unicode characters"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4", "EOF|header"),
        (b"", "EOF|magic"),
    ],
    ids=lambda value: repr(value)[-30:],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_headers_that_claim_something_else(
    member: bytes, words: str, method: int, tmp_path: Path
) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match=words):
        read_arrays(_write(tmp_path / "x.npz", member, method), "values")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def _forged(path: Path, **fields: int) -> Path:
    """A file whose directory claims other sizes than it has."""
    stream = io.BytesIO()
    np.save(stream, VALUES)
    _write(path, stream.getvalue())
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    places = {"flags": (8, "<H"), "method": (10, "<H"), "packed": (20, "<I"), "size": (24, "<I")}
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, data, entry + place, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": 0xFFFFFF00}, "declares 4294967040 bytes"),
        ({"packed": 0xFFFFFF00, "size": 0xFFFFFF00}, "declares 4294967040 bytes"),
        ({"method": 8, "size": 0x7FFFFFFF}, "declares 2147483647 bytes"),
        ({"method": 12}, "compression method 12"),
        ({"method": 14}, "compression method 14"),
        ({"method": 99}, "compression method 99"),
        ({"flags": 1}, "is encrypted"),
        ({"method": 8}, "zlib|error|Bad"),
    ],
)
def test_directories_that_claim_something_else(
    fields: dict[str, int], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        read_arrays(_forged(tmp_path / "x.npz", **fields), "values")


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    """Of 200 MB of zeros nothing is read beyond the header, which claims less."""
    member = _header("'<f4'", "(4, 3)") + b"\0" * (200 << 20)
    path = _write(tmp_path / "x.npz", member, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="176 expected"):
        read_arrays(path, "values")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_no_zip_file(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ValueError, match="BadZipFile"):
        read_arrays(tmp_path / "x.npz", "values")
    with pytest.raises(OSError, match="No such file"):
        read_arrays(tmp_path / "none.npz", "values")


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (np.zeros(4), np.arange(4)),
        (np.zeros((4, 3)), np.arange(3)),
        (np.zeros((4, 3)), np.zeros(4)),
        (np.array([["a", "b"]] * 4), np.arange(4)),
        (np.zeros((4, 3), np.int64), np.arange(4)),
    ],
)
def test_a_cache_of_other_shapes_is_damaged(
    values: np.ndarray, labels: np.ndarray, tmp_path: Path
) -> None:
    cache = PosteriorCache(tmp_path)
    cache.store_arrays({"net": "toy"}, values=values, labels=labels)
    with pytest.raises(DataError, match="the posteriors cannot be read: arrays of the shapes"):
        cache.load({"net": "toy"})


def test_a_damaged_checksum_is_computed_again(tmp_path: Path) -> None:
    class Source:
        def __len__(self) -> int:
            return 1

        def key(self, index: int) -> str:
            return "0"

        def get(self, index: int) -> bytes:
            return b"record"

    (tmp_path / "data.mdb").write_bytes(b"x")
    cache = PosteriorCache(tmp_path / "cache")
    first = cache.data_fingerprint(tmp_path, Source(), 1)
    (note,) = (tmp_path / "cache").iterdir()
    for content in (b"", b"\xff" * 64, b"0" * 63, b"0" * 100_000):
        note.write_bytes(content)
        assert cache.data_fingerprint(tmp_path, Source(), 1) == first
    assert note.read_text() == first + "\n"
