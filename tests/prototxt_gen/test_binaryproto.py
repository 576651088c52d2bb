from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.binaryproto import (
    array_to_blob,
    blob_to_array,
    read_binaryproto,
    write_binaryproto,
)
from prototxt_gen.errors import DataError

MEAN = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_a_mean_has_the_four_dimensions_that_caffe_s_tools_write(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    write_binaryproto(path, MEAN)
    blob = proto.BlobProto.FromString(path.read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 2, 3, 4)
    assert list(blob.data) == list(range(24))
    np.testing.assert_array_equal(read_binaryproto(path), MEAN[None], strict=True)


def test_the_current_form_keeps_the_shape(tmp_path: Path) -> None:
    path = tmp_path / "a.binaryproto"
    for array in (MEAN, MEAN[0, 0], MEAN[None, None]):
        write_binaryproto(path, array, legacy=False)
        np.testing.assert_array_equal(read_binaryproto(path), array, strict=True)


def test_doubles_gradients_and_precedence() -> None:
    blob = proto.BlobProto(shape={"dim": [2]}, double_data=[1 / 3, 2], data=[9, 9], diff=[4, 5])
    np.testing.assert_array_equal(blob_to_array(blob), np.array([1 / 3, 2]), strict=True)
    assert blob_to_array(blob, diff=True).tolist() == [4, 5]
    old = proto.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    old.shape.dim.append(2)
    assert blob_to_array(old).shape == (1, 1, 1, 2)
    back = array_to_blob(MEAN, MEAN / 2)
    np.testing.assert_array_equal(blob_to_array(back, diff=True), MEAN / 2)
    assert list(back.shape.dim) == [2, 3, 4]


def test_an_array_that_is_no_mean(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(DataError, match=r"m: cannot be read: No such file or directory; expec"):
        read_binaryproto(path)
    path.write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"m: not a BlobProto \(.*\); expected a binary array such"):
        read_binaryproto(path)
    path.write_bytes(proto.SolverState(current_step=3).SerializeToString())
    with pytest.raises(DataError, match=r"expected as many numbers as shape \(0, 0, 0, 3\) has, g"):
        path.write_bytes(proto.BlobProto(width=3, data=[1]).SerializeToString())
        read_binaryproto(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"m: a BlobProto without a shape; expected a binary array"):
        read_binaryproto(path)
    with pytest.raises(DataError, match=r"at most 4 axes for num, channels, height and width, got"):
        array_to_blob(np.zeros((1,) * 5), legacy=True)
    with pytest.raises(DataError, match=r"expected a diff of the data's shape \(2, 3, 4\), got"):
        array_to_blob(MEAN, MEAN[0])


def test_more_axes_than_caffe_has() -> None:
    blob = proto.BlobProto(data=[1.0])
    blob.shape.dim.extend([1] * 33)
    with pytest.raises(DataError, match="a shape of 33 axes; expected at most 32, as in Caffe"):
        blob_to_array(blob, "mean.binaryproto")
