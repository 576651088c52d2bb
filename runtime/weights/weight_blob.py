"""BlobProto, read and written without copies of its numbers. Caffe: blob.cpp."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prototxt_gen.errors import SnapshotError
from prototxt_gen.geometry_limits import MAX_AXES
from runtime.weights.file_blob import Array, FileBlob
from runtime.weights.wire_format import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Field,
    Piece,
    WireReader,
    bytes_field,
    bytes_head,
    encode_varint,
    message_pieces,
    signed,
    varint_field,
)

_MAX_ELEMENTS = 1 << 62
_LEGACY_FIELDS = (1, 2, 3, 4)
_DATA, _DIFF, _SHAPE, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 7, 8, 9
_FLOATS = np.dtype("<f4")
_DOUBLES = np.dtype("<f8")
_NUMBERS: dict[int, np.dtype[Any]] = {
    _DATA: _FLOATS,
    _DIFF: _FLOATS,
    _DOUBLE_DATA: _DOUBLES,
    _DOUBLE_DIFF: _DOUBLES,
}
# NVIDIA's Caffe: raw bytes, with their type in another field.
_RAW_DATA_TYPE, _RAW_DIFF_TYPE, _RAW_DATA, _RAW_DIFF = 10, 11, 12, 13
_RAW_TYPES: dict[int, np.dtype[Any]] = {0: _DOUBLES, 1: _FLOATS, 2: np.dtype("<f2")}
_CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Values:
    """A list of numbers in a file, in one field or, rarely, in several."""

    reader: WireReader
    dtype: np.dtype[Any]
    fields: tuple[Field, ...]

    @property
    def count(self) -> int:
        return sum(self._count(field) for field in self.fields)

    def array(self) -> Array:
        """The numbers, read-only; a view of the file if they are in one packed field.

        Shapes: (count,).
        """
        parts = [self._part(field) for field in self.fields]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def copy_to(self, out: Array) -> None:
        """Copy into a contiguous array, with little of the file in memory.

        Shapes: `out` any shape of `count` elements.
        """
        flat = out.reshape(-1)
        done = 0
        for field in self.fields:
            part = self._part(field)
            stride = (field.stop - field.start) // max(len(part), 1)
            step = max(1, _CHUNK_BYTES // max(stride, 1))
            for begin in range(0, len(part), step):
                chunk = part[begin : begin + step]
                np.copyto(flat[done : done + len(chunk)], chunk, casting="same_kind")
                done += len(chunk)
                self.reader.release(field.start, field.start + (begin + len(chunk)) * stride)

    def _count(self, field: Field) -> int:
        if field.wire == BYTES:
            return (field.stop - field.start) // self.dtype.itemsize
        return field.records

    def _part(self, field: Field) -> Array:
        if field.wire == BYTES:
            return self.reader.bytes[field.start : field.stop].view(self.dtype)
        tag_size = field.start - field.tag
        records = self.reader.bytes[field.tag : field.stop].reshape(field.records, -1)
        return np.ascontiguousarray(records[:, tag_size:]).view(self.dtype).reshape(-1)


@dataclass(frozen=True)
class WeightBlob(FileBlob):
    """A BlobProto in a file. Its numbers are float32, float64 or float16, and read-only."""

    legacy: bool
    """The shape is num, channels, height, width, padded with 1 in front."""
    data: Values | None
    diff: Values | None = None
    nvidia: bool = False

    @property
    def has_diff(self) -> bool:
        return self.diff is not None

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a blob of this shape can take the numbers. Caffe: Blob::ShapeEquals."""
        if not self.legacy:
            return self.shape == tuple(shape)
        return len(shape) <= 4 and self.shape == (1,) * (4 - len(shape)) + tuple(shape)

    def array(self) -> Array:
        return self._array(self.data)

    def diff_array(self) -> Array | None:
        """The gradient, like `array`; None if the file has none.

        Raises:
            SnapshotError: the number of elements does not fit the shape.
        """
        return None if self.diff is None else self._array(self.diff)

    def copy_to(self, out: Array) -> None:
        """Copy the numbers with little of the file in memory."""
        values = self._checked(self.data)
        if values is not None:
            values.copy_to(out)

    def copy_diff_to(self, out: Array) -> None:
        values = self._checked(self.diff)
        if values is not None:
            values.copy_to(out)

    def _array(self, values: Values | None) -> Array:
        checked = self._checked(values)
        flat = np.empty(0, _FLOATS) if checked is None else checked.array()
        return flat.reshape(self.shape)

    def check(self) -> None:
        """Check that there are as many numbers as the shape has elements.

        Raises:
            SnapshotError: there are more or fewer.
        """
        self._checked(self.data)
        if self.diff is not None:
            self._checked(self.diff)

    def _checked(self, values: Values | None) -> Values | None:
        got = 0 if values is None else values.count
        if got != self.count:
            raise SnapshotError(
                f"{self.label}: shape and numbers disagree; expected {self.count} numbers for "
                f"shape {self.shape}, got {got}; the file is damaged, or in the format of another "
                "version of Caffe"
            )
        return values


def read_blob(reader: WireReader, start: int, stop: int, label: str) -> WeightBlob:
    """Read the BlobProto in the bytes start..stop-1, without its numbers.

    Raises:
        SnapshotError: the bytes are no BlobProto, or the type of its numbers is not supported.
    """
    legacy: dict[int, int] = {}
    dims: list[int] = []
    lists: dict[int, list[Field]] = {}
    raw: dict[int, Field] = {}
    for field in reader.fields(start, stop):
        number = field.number
        if number in _NUMBERS:
            _check_list(reader, field, _NUMBERS[number])
            lists.setdefault(number, []).append(field)
        elif number in _LEGACY_FIELDS:
            legacy[number] = _dimension(reader, field, _expect(reader, field, VARINT).value)
        elif number == _SHAPE:
            dims += _read_shape(reader, _expect(reader, field, BYTES))
        elif number in (_RAW_DATA_TYPE, _RAW_DIFF_TYPE):
            raw[number] = _expect(reader, field, VARINT)
        elif number in (_RAW_DATA, _RAW_DIFF):
            raw[number] = _expect(reader, field, BYTES)
    if len(dims) > MAX_AXES:
        raise reader.error(start, f"a shape of at most {MAX_AXES} axes", f"{len(dims)}")
    shape = tuple(legacy.get(number, 0) for number in _LEGACY_FIELDS) if legacy else tuple(dims)
    if 0 in shape and math.prod(filter(None, shape)) > _MAX_ELEMENTS:
        # With an axis of 0, the count of numbers does not limit the other axes.
        raise reader.error(start, f"a shape of less than {_MAX_ELEMENTS} elements", f"{shape}")
    return WeightBlob(
        label,
        shape,
        bool(legacy),
        _raw_values(reader, raw, _RAW_DATA, _RAW_DATA_TYPE)
        or _list_values(reader, lists, _DOUBLE_DATA, _DATA),
        _raw_values(reader, raw, _RAW_DIFF, _RAW_DIFF_TYPE)
        or _list_values(reader, lists, _DOUBLE_DIFF, _DIFF),
        nvidia=bool(raw),
    )


def _expect(reader: WireReader, field: Field, wire: int) -> Field:
    if field.wire != wire:
        raise reader.error(
            field.tag, f"wire type {wire} for field {field.number}", f"wire type {field.wire}"
        )
    return field


def _check_list(reader: WireReader, field: Field, dtype: np.dtype[Any]) -> None:
    size = field.stop - field.start
    if field.wire == BYTES:
        if size % dtype.itemsize:
            raise reader.error(field.tag, f"a multiple of {dtype.itemsize} bytes", f"{size}")
    elif field.wire != (FIXED32 if dtype == _FLOATS else FIXED64):
        raise reader.error(
            field.tag, f"numbers of {dtype.itemsize} bytes", f"wire type {field.wire}"
        )


def _dimension(reader: WireReader, field: Field, value: int) -> int:
    if signed(value) < 0:
        raise reader.error(field.tag, "a dimension of at least 0", f"{signed(value)}")
    return value


def _read_shape(reader: WireReader, shape: Field) -> list[int]:
    dims: list[int] = []
    for field in reader.fields(shape.start, shape.stop):
        if field.number != 1:
            continue
        if field.wire == VARINT:
            dims.append(_dimension(reader, field, field.value))
            continue
        position = _expect(reader, field, BYTES).start
        while position < field.stop:
            value, position = reader.varint(position, field.stop)
            dims.append(_dimension(reader, field, value))
            if len(dims) > MAX_AXES:
                raise reader.error(field.tag, f"a shape of at most {MAX_AXES} axes", "more")
    return dims


def _list_values(reader: WireReader, lists: dict[int, list[Field]], *order: int) -> Values | None:
    for number in order:
        if number in lists:
            return Values(reader, _NUMBERS[number], tuple(lists[number]))
    return None


def _raw_values(reader: WireReader, raw: dict[int, Field], data: int, kind: int) -> Values | None:
    if data not in raw:
        return None
    number = raw[kind].value if kind in raw else None
    dtype = _RAW_TYPES.get(-1 if number is None else number)
    if dtype is None:
        raise reader.error(
            raw[data].tag,
            "raw data of type 0 (double), 1 (float) or 2 (float16)",
            "raw data without a type" if number is None else f"type {number}",
        )
    _check_list(reader, raw[data], dtype)
    return Values(reader, dtype, (raw[data],))


def blob_pieces(
    number: int, data: Array, diff: Array | None = None, legacy: bool = False
) -> list[Piece]:
    """A BlobProto as field `number` of a message, in BVLC's order; arrays are not copied.

    float64 is written to double_data, other types to data. `legacy` writes num, channels, height
    and width in place of a shape.

    Shapes: data and diff equal.

    Raises:
        SnapshotError: `legacy` with more than 4 axes.
    """
    double = data.dtype == np.float64
    payload: list[Piece] = []
    shape: bytes = b""
    if legacy:
        payload.append(b"".join(map(varint_field, _LEGACY_FIELDS, legacy_shape(data.shape))))
    else:
        dims = b"".join(map(encode_varint, data.shape))
        shape = bytes_field(_SHAPE, bytes_field(1, dims)) if dims else b""
    arrays = [(_DOUBLE_DATA if double else _DATA, data)]
    if diff is not None:
        arrays.append((_DOUBLE_DIFF if double else _DIFF, diff))
    lists = [piece for field, array in arrays for piece in _packed(field, array)]
    # protobuf writes fields by number: shape after data and before double_data.
    payload += [shape, *lists] if double else [*lists, shape]
    return message_pieces(number, payload)


def legacy_shape(shape: Sequence[int]) -> tuple[int, int, int, int]:
    """num, channels, height and width; missing leading axes are 1.

    Raises:
        SnapshotError: the shape has more than four axes.
    """
    if len(shape) > 4:
        raise SnapshotError(
            f"a blob of shape {tuple(shape)} has no form with num, channels, height and "
            "width; expected at most 4 axes; write the current form"
        )
    n, c, h, w = (1,) * (4 - len(shape)) + tuple(shape)
    return n, c, h, w


def _packed(number: int, array: Array) -> Iterator[Piece]:
    dtype = _NUMBERS[number]
    flat = np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8)
    if len(flat):
        yield bytes_head(number, len(flat))
        yield flat
