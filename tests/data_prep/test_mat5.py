"""The reader of meta.mat, compared with SciPy's writer."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.mat5 import read_structs

FIELDS = ("number", "text")


def _save(path: Path, compressed: bool = False, **variables: Any) -> Path:
    from scipy.io import savemat

    savemat(str(path), variables, do_compression=compressed)
    return path


def _rows(*values: tuple[Any, ...]) -> Any:
    return np.array(list(values), dtype=[("number", "O"), ("other", "O"), ("text", "O")])


@pytest.mark.parametrize("compressed", [False, True])
def test_numbers_and_text_of_a_structure(compressed: bool, tmp_path: Path) -> None:
    rows = _rows(
        (1, [1, 2, 3], "n01440764"),
        (np.float32(2.5), {"a": {"b": 1}}, "caf\u00e9 \u4e2d"),
        (np.uint8(3), "x", ""),
        (np.array([[-4, 5]], np.int16), np.zeros((2, 3), bool), "a b"),
        (1 << 40, [], 7.0),
    )
    path = _save(tmp_path / "m.mat", compressed, before=np.arange(9), rows=rows, after="x")
    found = read_structs(path, "rows", FIELDS)
    assert [row["number"] for row in found] == [1, 2.5, 3, -4, float(1 << 40)]
    assert [row["text"] for row in found] == ["n01440764", "caf\u00e9 \u4e2d", "", "a b", 7.0]


def test_a_table_of_the_kit_s_size(tmp_path: Path) -> None:
    rows = _rows(*[(n, "words", f"n{n:08d}") for n in range(1, 1861)])
    found = read_structs(_save(tmp_path / "m.mat", True, rows=rows[:, None]), "rows", FIELDS)
    assert len(found) == 1860 and found[1859] == {"number": 1860.0, "text": "n00001860"}


def test_what_is_not_there(tmp_path: Path) -> None:
    path = _save(tmp_path / "m.mat", rows=_rows((1, 2, "x")), number=3.0)
    for variable, fields, words in (
        ("none", FIELDS, "no variable none"),
        ("number", FIELDS, "number is no structure"),
        ("rows", ("missing", "text"), "no field missing"),
    ):
        with pytest.raises(ValueError, match=words):
            read_structs(path, variable, fields)
    path.write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match=r"no \.mat file of version 5"):
        read_structs(path, "rows", FIELDS)


def _file(*elements: bytes) -> bytes:
    return b" " * 124 + struct.pack("<H", 0x100) + b"IM" + b"".join(elements)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def test_sizes_are_compared_with_the_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.mat"
    flags, name = _element(6, struct.pack("<II", 2, 0)), _element(1, b"rows")
    names = _element(5, struct.pack("<i", 8)) + _element(1, b"number\0\0text\0\0\0\0")

    def of_shape(*dims: int) -> bytes:
        shape = _element(5, struct.pack(f"<{len(dims)}i", *dims))
        return _element(14, flags + shape + name + names)

    for content, words in (
        (_file(struct.pack("<II", 14, 0xFFFFFFF8)), "where 8 are left"),
        (_file(of_shape(2**31 - 1, 2**31 - 1, 2**31 - 1)), "cut short"),
        (_file(of_shape(-1, -5)), "a structure"),
        (_file(_element(15, zlib.compress(b"\0" * (100 << 20)))), "more than"),
        (_file(_element(15, b"junk")), "damaged: .*decompress"),
        (_file(_element(14, flags)), "cut short"),
        (_file(_element(14, b"")), "no variable"),
        (_file(b"\x0e\0\0"), "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            read_structs(path, "rows", FIELDS)
    path.write_bytes(_file(of_shape(0, 0)))
    assert read_structs(path, "rows", FIELDS) == []
