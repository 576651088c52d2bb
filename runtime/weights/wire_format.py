"""Protobuf's wire format, read where it lies and written piece by piece.

protobuf's own parser makes an object of every message and copies every number, and some builds
stop at 2 GB. Weights are a few messages and half a gigabyte of floats: here the messages are
walked and the floats left in place.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from prototxt_gen.destination import current_folder
from prototxt_gen.errors import SnapshotError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10
_MASK64 = (1 << 64) - 1
_MAX_RUN_STEP = 1 << 20
_FOREIGN = (
    (b"\x1f\x8b", "a gzip file; unpack it first"),
    (b"PK\x03\x04", "a zip file; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (b"<", "a web page or XML; download the file itself"),
)
_TEXT = frozenset(range(32, 127)) | {9, 10, 13}
_TELLING = 16

Bytes = npt.NDArray[np.uint8]


class Field(NamedTuple):
    """One field of a message; byte positions are those of the whole buffer.

    Consecutive fixed-size fields of one number come as one Field: an unpacked list of a million
    floats is one step, not a million. `records` tells how many they are.
    """

    number: int
    wire: int
    value: int
    """Of a varint."""
    tag: int
    """Where the tag begins."""
    start: int
    """Where the payload begins."""
    stop: int
    """Where the field, or the run of fields, ends."""
    records: int = 1


class WireReader:
    """Walks a buffer. Every position is checked against the buffer before it is used."""

    def __init__(self, data: bytes | mmap.mmap, where: str) -> None:
        self.bytes: Bytes = np.frombuffer(data, np.uint8)
        self.where = where
        self.size = len(data)
        self._data = data

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message that fills start..stop.

        Raises:
            SnapshotError: the bytes are no message; says where and what was expected.
        """
        at = start
        while at < stop:
            tag, body = self.varint(at, stop)
            number, wire, value, count = tag >> 3, tag & 7, 0, 1
            if not 0 < number < 1 << 29:
                raise self.error(at, "a field's tag", f"field number {number}")
            if wire == VARINT:
                value, end = self.varint(body, stop)
            elif wire == BYTES:
                length, body = self.varint(body, stop)
                end = body + length
            elif wire in _FIXED_SIZE:
                stride = body + _FIXED_SIZE[wire] - at
                count = self._run(at, body - at, stride, stop)
                end = at + max(count, 1) * stride
            else:
                raise self.error(at, "a field's tag", f"wire type {wire}")
            if end > stop:
                raise self._overrun(at, end, stop)
            yield Field(number, wire, value, at, body, end, count)
            at = end

    def varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number at a position, and the position behind it."""
        value = 0
        for index in range(_MAX_VARINT):
            if at + index >= stop:
                raise self._overrun(at, at + index + 1, stop)
            byte = self._data[at + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & _MASK64, at + index + 1
        raise self.error(at, f"a number of at most {_MAX_VARINT} bytes", "a longer one")

    def raw(self, start: int, stop: int) -> bytes:
        """A copy of some bytes; for names and parameters, not for weights."""
        return bytes(self._data[start:stop])

    def text(self, field: Field) -> str:
        """The payload of a string field. Names in other encodings than UTF-8 stay distinct."""
        return self.raw(field.start, field.stop).decode("utf-8", "surrogateescape")

    def release(self, start: int, stop: int) -> None:
        """Let go of the memory that holds start..stop; read again, it comes from the file."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            last = stop // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self._data.madvise(mmap.MADV_DONTNEED, first, last - first)

    def error(self, at: int, expected: str, got: str) -> SnapshotError:
        """Make the error for something unexpected at a byte."""
        return SnapshotError(
            f"{self.where}: byte {at}: damaged, or a file of another kind; expected {expected}, "
            f"got {got}; {self._remedy()}"
        )

    def _run(self, at: int, tag_size: int, stride: int, stop: int) -> int:
        """How many records from `at` on begin with the same tag; 0 where not even one fits."""
        limit = (stop - at) // stride
        tag = self.bytes[at : at + tag_size]
        count, step = min(1, limit), 8
        while count < limit:
            size = min(step, limit - count)
            begin = at + count * stride
            records = self.bytes[begin : begin + size * stride].reshape(size, stride)
            same = (records[:, :tag_size] == tag).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count += size
            step = min(2 * step, _MAX_RUN_STEP)
        return count

    def _overrun(self, at: int, end: int, stop: int) -> SnapshotError:
        if stop < self.size:
            return self.error(at, f"at most {stop - at} bytes more in this message", f"{end - at}")
        return SnapshotError(
            f"{self.where}: byte {at}: the file ends too early; expected at least {end} bytes in "
            f"all, got {self.size}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        head = self.raw(0, 256)
        for signature, kind in _FOREIGN:
            if head.startswith(signature):
                return f"this is {kind}"
        if len(head) >= _TELLING and _TEXT.issuperset(head):
            return "this is text, such as a prototxt; give the binary file"
        return "copy or download it again, in full"


def map_file(path: str | os.PathLike[str]) -> WireReader:
    """A reader over a file that stays on disk; what is looked at is mapped into memory.

    Raises:
        SnapshotError: the file is missing, unreadable or empty.
    """
    try:
        with Path(path).open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size == 0:
                raise SnapshotError(
                    f"{path}: the file is empty; expected a binary message; "
                    "copy or download it again"
                )
            return WireReader(mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ), str(path))
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else None
        raise SnapshotError(
            f"{path}: cannot be read: {reason or cause}; expected a file; check the path "
            f"(the current folder is {current_folder()})"
        ) from cause


def signed(value: int) -> int:
    """Read a varint as int64, as protobuf stores negative int32 and int64."""
    return value - (1 << 64) if value >= 1 << 63 else value


def encode_varint(value: int) -> bytes:
    """The bytes of a number; a negative one takes ten, as int64."""
    value &= _MASK64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def varint_field(number: int, value: int) -> bytes:
    return encode_varint(number << 3 | VARINT) + encode_varint(value)


def bytes_head(number: int, length: int) -> bytes:
    """What goes before the payload of a string, a message or a packed list."""
    return encode_varint(number << 3 | BYTES) + encode_varint(length)


def bytes_field(number: int, payload: bytes) -> bytes:
    return bytes_head(number, len(payload)) + payload


Piece = Any
"""Bytes, or a flat uint8 array over somebody's numbers: both have a length and can be written."""


def message_pieces(number: int, payload: list[Piece]) -> list[Piece]:
    """A message field of which the payload is not gathered into one place."""
    return [bytes_head(number, sum(map(len, payload))), *payload]
