from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError
from runtime.weights.caffemodel import blob_data, read_caffemodel, read_net, write_caffemodel
from runtime.weights.wire_format import bytes_field, varint_field

FLOATS, DOUBLES, HALVES = np.dtype("<f4"), np.dtype("<f8"), np.dtype("<f2")


def one_layer(path: Path, blob: Any, **fields: Any) -> Any:
    """The only blob of a file with one layer, from a BlobProto's bytes."""
    layer = proto.LayerParameter(name="conv", type="Convolution", **fields).SerializeToString()
    raw = blob if isinstance(blob, bytes) else blob.SerializeToString()
    path.write_bytes(bytes_field(100, layer + bytes_field(7, raw)))
    (found,) = read_caffemodel(path)
    (weights,) = found.blobs
    return weights


@pytest.mark.parametrize(
    ("number", "dtype"), [(0, DOUBLES), (1, FLOATS), (2, HALVES)], ids=["double", "float", "half"]
)
def test_nvidia_s_raw_data(tmp_path: Path, number: int, dtype: np.dtype[Any]) -> None:
    values = np.array([[0.5, -2, 65504], [1, 2**-14, 0]], dtype)
    shape = proto.BlobProto(shape={"dim": [2, 3]}).SerializeToString()
    raw = shape + varint_field(10, number) + bytes_field(12, values.tobytes())
    gradient = varint_field(11, number) + bytes_field(13, (values / 2).tobytes())
    path = tmp_path / "nvidia.caffemodel"
    blob = one_layer(path, raw + gradient)
    np.testing.assert_array_equal(blob.array(), values, strict=True)
    np.testing.assert_array_equal(blob.diff_array(), values / 2, strict=True)
    assert read_caffemodel(path)[0].nvidia
    out = np.empty((2, 3), np.float32)
    blob.copy_to(out)
    np.testing.assert_array_equal(out, values.astype(np.float32))
    net, blobs = read_net(path)
    write_caffemodel(path, net, [[blob_data(blobs[0][0], "Convolution", 0)]])
    written = proto.NetParameter.FromString(path.read_bytes()).layer[0].blobs[0]
    assert np.array(written.double_data or written.data).tolist() == values.ravel().tolist()
    assert not read_caffemodel(path)[0].nvidia


@pytest.mark.parametrize(
    ("fields", "got"),
    [
        (varint_field(10, 3), "type 3"),
        (varint_field(10, 99), "type 99"),
        (b"", "raw data without a type"),
    ],
)
def test_raw_data_of_another_type_is_refused(tmp_path: Path, fields: bytes, got: str) -> None:
    with pytest.raises(
        SnapshotError,
        match=rf"expected raw data of type 0 \(double\), 1 \(float\) or 2 \(float16\), got {got};",
    ):
        one_layer(tmp_path / "net", fields + bytes_field(12, bytes(4)))


def test_numbers_stored_in_other_ways(tmp_path: Path) -> None:
    path = tmp_path / "net"
    values = np.arange(1000, dtype=np.float32)
    shape = proto.BlobProto(shape={"dim": [10, 100]}).SerializeToString()
    one_by_one = b"".join(b"\x2d" + value.tobytes() for value in values)
    in_two = bytes_field(5, values[:300].tobytes()) + bytes_field(5, values[300:].tobytes())
    mixed = one_by_one[: 5 * 300] + shape + bytes_field(5, values[300:].tobytes())
    double = shape + bytes_field(8, values.astype(np.float64).tobytes())
    for raw in (shape + one_by_one, in_two + shape, mixed, double):
        blob = one_layer(path, raw)
        np.testing.assert_array_equal(blob.array(), values.reshape(10, 100))
        out = np.empty(1000, np.float32)
        blob.copy_to(out)
        np.testing.assert_array_equal(out, values)
    unpacked_shape = bytes_field(7, b"\x08\x0a\x08\x64")
    assert one_layer(path, unpacked_shape + one_by_one).shape == (10, 100)
    assert one_layer(path, proto.BlobProto(data=[3])).array().shape == ()
    assert one_layer(path, proto.BlobProto(shape={"dim": [0, 4]})).array().shape == (0, 4)


@pytest.mark.parametrize(
    ("blob", "text"),
    [
        (proto.BlobProto(shape={"dim": [2]}, data=[1]), "expected 2 numbers for shape (2,), got 1"),
        (
            proto.BlobProto(shape={"dim": [2**40, 2**40]}),
            "for shape (1099511627776, 1099511627776)",
        ),
        (proto.BlobProto(num=2, data=[1, 2]), "expected 0 numbers for shape (2, 0, 0, 0), got 2"),
        (proto.BlobProto(shape={"dim": [-1]}), "expected a dimension of at least 0, got -1"),
        (proto.BlobProto(num=-3), "expected a dimension of at least 0, got -3"),
        (proto.BlobProto(shape={"dim": [1] * 33}), "expected a shape of at most 32 axes, got more"),
        (proto.BlobProto(shape={"dim": [0] + [10] * 20}), "expected a shape of less than 46116860"),
        (b"\x2a\x03abc", "expected a multiple of 4 bytes, got 3"),
        (b"\x28\x01", "expected numbers of 4 bytes, got wire type 0"),
        (b"\x45\x00\x00\x00\x00", "expected numbers of 8 bytes, got wire type 5"),
        (b"\x0a\x00", "expected wire type 0 for field 1, got wire type 2"),
    ],
)
def test_blobs_that_contradict_themselves(tmp_path: Path, blob: Any, text: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        one_layer(tmp_path / "net", blob).array()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "target", "fits"),
    [
        ((1, 1, 10, 216), (10, 216), True),
        ((1, 1, 1, 6), (6,), True),
        ((6, 3, 3, 3), (6, 3, 3, 3), True),
        ((1, 1, 1, 1), (), True),
        ((1, 1, 10, 216), (216, 10), False),
        ((1, 1, 10, 216), (10, 6, 6, 6), False),
        ((1, 1, 1, 6), (1, 1, 1, 1, 6), False),
    ],
)
def test_old_dimensions_fit_what_is_padded_in_front(
    tmp_path: Path, stored: tuple[int, ...], target: tuple[int, ...], fits: bool
) -> None:
    num, channels, height, width = stored
    old = proto.BlobProto(num=num, channels=channels, height=height, width=width)
    assert one_layer(tmp_path / "net", old).fits(target) == fits
    new = proto.BlobProto(shape={"dim": stored})
    assert one_layer(tmp_path / "net", new).fits(target) == (stored == target)
