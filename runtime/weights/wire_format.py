"""Protobuf's wire format: read in a mapped file without copies, and written in pieces.

protobuf's parser creates an object for every message and copies every number, and some builds are
limited to 2 GB. A file of weights has few messages and up to half a gigabyte of floats; here the
messages are parsed and the floats stay in the file.
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
from prototxt_gen.integers import round_up

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
_MIN_TEXT = 16
"""Bytes of text after which a file is reported as text."""

Bytes = npt.NDArray[np.uint8]


class Field(NamedTuple):
    """One field of a message, or a run of fixed-size fields of one number (an unpacked list).

    Units: tag, start and stop in bytes from the start of the buffer.
    """

    number: int
    wire: int
    value: int
    """The value of a varint."""
    tag: int
    """The start of the tag."""
    start: int
    """The start of the payload."""
    stop: int
    """The end of the field, or of the run of fields."""
    records: int = 1
    """The number of fields in the run."""


class WireReader:
    """Parses a buffer. Every position is checked before it is used.

    `label` is the start of error messages.
    """

    def __init__(self, data: bytes | mmap.mmap, label: str) -> None:
        self.bytes: Bytes = np.frombuffer(data, np.uint8)
        self.label = label
        self.size = len(data)
        self._data = data

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """The fields of the message in the bytes start..stop-1.

        Raises:
            SnapshotError: the bytes are no message; gives the position and what was expected.
        """
        position = start
        while position < stop:
            tag, body = self.varint(position, stop)
            number, wire, value, count = tag >> 3, tag & 7, 0, 1
            if not 0 < number < 1 << 29:
                raise self.error(position, "a field's tag", f"field number {number}")
            if wire == VARINT:
                value, end = self.varint(body, stop)
            elif wire == BYTES:
                length, body = self.varint(body, stop)
                end = body + length
            elif wire in _FIXED_SIZE:
                stride = body + _FIXED_SIZE[wire] - position
                count = self._run_length(position, body - position, stride, stop)
                end = position + max(count, 1) * stride
            else:
                raise self.error(position, "a field's tag", f"wire type {wire}")
            if end > stop:
                raise self._overrun(position, end, stop)
            yield Field(number, wire, value, position, body, end, count)
            position = end

    def varint(self, position: int, stop: int) -> tuple[int, int]:
        """The number at a position, and the position after it.

        Raises:
            SnapshotError: the number does not end before `stop`, or is too long.
        """
        value = 0
        for index in range(_MAX_VARINT):
            if position + index >= stop:
                raise self._overrun(position, position + index + 1, stop)
            byte = self._data[position + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & _MASK64, position + index + 1
        raise self.error(position, f"a number of at most {_MAX_VARINT} bytes", "a longer one")

    def raw(self, start: int, stop: int) -> bytes:
        """A copy of the bytes start..stop-1."""
        return bytes(self._data[start:stop])

    def text(self, field: Field) -> str:
        """The payload of a string field. Bytes that are not UTF-8 become surrogates."""
        return self.raw(field.start, field.stop).decode("utf-8", "surrogateescape")

    def release(self, start: int, stop: int) -> None:
        """Free the memory of the mapped bytes start..stop-1; a later read loads them again."""
        if isinstance(self._data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            first = round_up(start, mmap.PAGESIZE)
            last = stop // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                self._data.madvise(mmap.MADV_DONTNEED, first, last - first)

    def error(self, position: int, expected: str, got: str) -> SnapshotError:
        """The error for an unexpected byte."""
        return SnapshotError(
            f"{self.label}: byte {position}: damaged, or a file of another kind; expected "
            f"{expected}, got {got}; {self._remedy()}"
        )

    def _run_length(self, position: int, tag_size: int, stride: int, stop: int) -> int:
        """The number of consecutive records with the same tag; 0 if the first does not fit."""
        limit = (stop - position) // stride
        tag = self.bytes[position : position + tag_size]
        count, step = min(1, limit), 8
        while count < limit:
            size = min(step, limit - count)
            begin = position + count * stride
            records = self.bytes[begin : begin + size * stride].reshape(size, stride)
            same = (records[:, :tag_size] == tag).all(axis=1)
            if not same.all():
                return count + int(same.argmin())
            count += size
            step = min(2 * step, _MAX_RUN_STEP)
        return count

    def _overrun(self, position: int, end: int, stop: int) -> SnapshotError:
        if stop < self.size:
            expected = f"at most {stop - position} bytes more in this message"
            return self.error(position, expected, f"{end - position}")
        return SnapshotError(
            f"{self.label}: byte {position}: the file ends too early; expected at least {end} "
            f"bytes in all, got {self.size}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        head = self.raw(0, 256)
        for signature, kind in _FOREIGN:
            if head.startswith(signature):
                return f"this is {kind}"
        if len(head) >= _MIN_TEXT and _TEXT.issuperset(head):
            return "this is text, such as a prototxt; give the binary file"
        return "copy or download it again, in full"


def map_file(path: str | os.PathLike[str]) -> WireReader:
    """A reader of a memory-mapped file.

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
    """The signed value of a varint, which holds negative numbers as 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def encode_varint(value: int) -> bytes:
    """The bytes of a number; of a negative one, ten bytes."""
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
    """The tag and the length before the payload of a string, a message or a packed list."""
    return encode_varint(number << 3 | BYTES) + encode_varint(length)


def bytes_field(number: int, payload: bytes) -> bytes:
    return bytes_head(number, len(payload)) + payload


Piece = Any
"""Bytes, or a flat uint8 view of an array."""


def message_pieces(number: int, payload: list[Piece]) -> list[Piece]:
    """A message field whose payload is given in pieces, which are not copied."""
    return [bytes_head(number, sum(map(len, payload))), *payload]
