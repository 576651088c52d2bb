"""Reading structures of MATLAB .mat files of version 5, as needed for the meta.mat of ILSVRC.

Numbers and text in the fields of one structure array are read, and every size is checked against
the stored bytes. SciPy's reader crashes on damaged files.

Source: MathWorks, MAT-File Format, Level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from prototxt_gen.reading import read_bytes

_HEADER = 128
_ORDERS = {b"IM": "<", b"MI": ">"}
_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR = 2, 4
_NUMERIC = range(6, 16)
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_NUMBERS |= {12: "i8", 13: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_MOST_BYTES = 1 << 26

Value = float | str | None
"""The first number of a numeric field, the text of a character field, None for other fields."""


def read_structs(path: Path, variable: str, fields: Sequence[str]) -> list[dict[str, Value]]:
    """Some fields of the elements of a structure array.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, has another version, or has no such variable.
    """
    content = read_bytes(path, _MOST_BYTES)
    order = _ORDERS.get(content[126:128])
    if order is None:
        raise ValueError("no .mat file of version 5")
    try:
        for kind, data in _elements(memoryview(content)[_HEADER:], order, padded=False):
            if kind == _COMPRESSED:
                ((kind, data),) = _elements(_inflated(data), order)
            parts = _elements(data, order) if kind == _MATRIX and len(data) else iter(())
            matrix = _head(parts, order)
            if matrix is not None and matrix[2] == variable:
                if matrix[0] != _STRUCT:
                    raise ValueError(f"{variable} is no structure")
                return list(_structs(parts, order, matrix[1], fields))
    except (struct.error, zlib.error) as cause:
        raise ValueError(f"damaged: {cause}") from cause
    raise ValueError(f"no variable {variable}")


def _inflated(data: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, _MOST_BYTES)
    if inflater.unconsumed_tail:
        raise ValueError(f"a variable of more than {_MOST_BYTES} bytes")
    return memoryview(content)


def _elements(
    data: memoryview, order: str, padded: bool = True
) -> Iterator[tuple[int, memoryview]]:
    """The type and the bytes of each data element."""
    while len(data):
        first, size = struct.unpack_from(order + "II", data)
        if first >> 16:
            # The tag of a small element contains its bytes.
            kind, size, start, after = first & 0xFFFF, first >> 16, 4, 8
        else:
            kind, start = first, 8
            after = start + (size + 7) // 8 * 8 if padded or kind != _COMPRESSED else start + size
        if start + size > len(data) or (after == 8 and start + size > after):
            raise ValueError(f"an element of {size} bytes where {len(data)} are left")
        yield kind, data[start : start + size]
        data = data[after:]


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    part = next(parts, None)
    if part is None:
        raise ValueError("a matrix that is cut short")
    return part


def _head(
    parts: Iterator[tuple[int, memoryview]], order: str
) -> tuple[int, tuple[int, ...], str] | None:
    """Class, dimensions and name of a matrix; None for an empty one."""
    flags = next(parts, None)
    if flags is None:
        return None
    dims, name = _next(parts)[1], _next(parts)[1]
    (word,) = struct.unpack_from(order + "I", flags[1])
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims)
    return word & 0xFF, shape, bytes(name).decode("latin-1")


def _structs(
    parts: Iterator[tuple[int, memoryview]],
    order: str,
    shape: tuple[int, ...],
    fields: Sequence[str],
) -> Iterator[dict[str, Value]]:
    length, names = _next(parts)[1], _next(parts)[1]
    (width,) = struct.unpack_from(order + "i", length)
    if width < 1 or min(shape, default=0) < 0:
        raise ValueError(f"a structure {shape} of names of {width} bytes")
    own = [
        bytes(names[start : start + width]).partition(b"\0")[0].decode("latin-1")
        for start in range(0, len(names), width)
    ]
    missing = set(fields) - set(own)
    if missing:
        raise ValueError(f"no field {', '.join(sorted(missing))}")
    for _ in range(math.prod(shape)):
        values = {name: _next(parts) for name in own}
        yield {name: _value(*values[name], order) for name in fields}


def _value(kind: int, data: memoryview, order: str) -> Value:
    parts = _elements(data, order)
    matrix = _head(parts, order) if kind == _MATRIX else None
    if matrix is None:
        return None
    content = next(parts, None)
    if content is None:
        return None
    stored, values = content
    if matrix[0] == _CHAR and stored in _ENCODINGS:
        encoding = _ENCODINGS[stored]
        if encoding == "utf-16":
            encoding += "-le" if order == "<" else "-be"
        return bytes(values).decode(encoding, "replace")
    if matrix[0] in _NUMERIC and stored in _NUMBERS:
        dtype = np.dtype(order + _NUMBERS[stored])
        return float(np.frombuffer(values, dtype, 1)[0]) if len(values) >= dtype.itemsize else None
    return None
