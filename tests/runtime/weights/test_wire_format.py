from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError
from runtime.weights.wire_format import (
    BYTES,
    FIXED32,
    VARINT,
    WireReader,
    bytes_field,
    encode_varint,
    map_file,
    message_pieces,
    signed,
    varint_field,
)


def fields(data: bytes) -> list[tuple[int, int, int]]:
    reader = WireReader(data, "here")
    return [(f.number, f.wire, f.value) for f in reader.fields(0, len(data))]


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**63, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        (-1, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    ],
)
def test_varints_of_the_format_s_own_description(value: int, encoded: bytes) -> None:
    assert encode_varint(value) == encoded
    decoded, at = WireReader(encoded, "here").varint(0, len(encoded))
    assert (decoded, at) == (value % 2**64, len(encoded))
    assert signed(decoded) == (value if value < 2**63 else value - 2**64)


def test_what_is_written_protobuf_reads() -> None:
    data = varint_field(1, 7) + bytes_field(2, b"net") + varint_field(4, -1 % 2**31)
    state = proto.SolverState.FromString(data)
    assert (state.iter, state.learned_net, state.current_step) == (7, "net", 2**31 - 1)
    pieces = message_pieces(3, [b"\x08", np.array([5], np.uint8)])
    blob = proto.SolverState.FromString(b"".join(map(bytes, pieces))).history[0]
    assert blob.num == 5


def test_what_protobuf_writes_is_walked() -> None:
    message = proto.SolverState(iter=3, learned_net="x" * 200, current_step=300)
    message.history.add(num=1)
    assert sorted(fields(message.SerializeToString())) == [
        (1, VARINT, 3),
        (2, BYTES, 0),
        (3, BYTES, 0),
        (4, VARINT, 300),
    ]


def test_a_run_of_numbers_is_one_field() -> None:
    record = b"\x2d" + np.float32(1.5).tobytes()
    data = b"\x08\x01" + record * 1000 + b"\x10\x02" + record
    reader = WireReader(data, "here")
    found = [(f.number, f.wire, f.records) for f in reader.fields(0, len(data))]
    assert found == [(1, VARINT, 1), (5, FIXED32, 1000), (2, VARINT, 1), (5, FIXED32, 1)]


def test_an_overlong_length_points_out_of_the_file() -> None:
    data = bytes_field(2, b"abc")
    for size in range(1, len(data)):
        with pytest.raises(SnapshotError, match=r"^here: byte \d+: the file ends too early; expec"):
            fields(data[:size])
    with pytest.raises(
        SnapshotError, match=f"expected at least {2**40 + 7} bytes in all, got 7; copy or download"
    ):
        fields(b"\x12" + encode_varint(2**40))


def test_an_overlong_length_inside_a_message_is_damage() -> None:
    data = bytes_field(2, b"\x12\x09ab") + b"\x08\x01"
    reader = WireReader(data, "here")
    outer = next(reader.fields(0, len(data)))
    with pytest.raises(
        SnapshotError,
        match=r"^here: byte 2: damaged, or a file of another kind; expected at most 4 bytes more "
        r"in this message, got 11; copy or download it again, in full$",
    ):
        list(reader.fields(outer.start, outer.stop))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x0b", "expected a field's tag, got wire type 3"),
        (b"\x0f\x00", "expected a field's tag, got wire type 7"),
        (b"\x00\x00", "expected a field's tag, got field number 0"),
        (b"\x08" + b"\xff" * 11, "expected a number of at most 10 bytes, got a longer one"),
        (b"<!DOCTYPE html>", "this is a web page or XML; download the file itself"),
        (b"version https://git-lfs.github.com/spec/v1", "this is a Git LFS pointer; fetch"),
        (b"\x1f\x8b\x08\x00", "this is a gzip file; unpack it first"),
        (b'name: "VGG"\nlayer {', "this is text, such as a prototxt; give the binary file"),
    ],
)
def test_errors_describe_the_bytes(data: bytes, text: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        fields(data)
    assert text in str(caught.value)


def test_a_file_is_mapped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(varint_field(1, 25) + bytes_field(2, bytes(100_000)))
    reader = map_file(path)
    first, second = reader.fields(0, reader.size)
    assert first.value == 25
    before = reader.raw(second.start, second.stop)
    reader.release(second.start, second.stop)
    assert reader.raw(second.start, second.stop) == before


def test_files_that_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"none: cannot be read: No such file or directory; ex"):
        map_file(tmp_path / "none")
    with pytest.raises(SnapshotError, match=r"cannot be read: Is a directory; expected a file"):
        map_file(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(SnapshotError, match=r"empty: the file is empty; expected a binary message"):
        map_file(tmp_path / "empty")
