"""Blobs as scripts see them."""

from __future__ import annotations

import pytest

from prototxt_gen.errors import ShapeError
from runtime.backend.registry import create_backend
from runtime.core.blob import Blob
from runtime.core.blob_view import BlobVec, BlobView


def test_a_list_of_weights_that_grows() -> None:
    blobs: list[Blob] = []
    vec = BlobVec(blobs, create_backend("cpu"), "mine")
    vec.add_blob(2, 3)
    vec.add_blob()
    assert [(blob.name, blob.shape) for blob in blobs] == [("mine[0]", (2, 3)), ("mine[1]", ())]
    assert (len(vec), vec[-1].shape, [view.count for view in vec]) == (2, (), [6, 1])
    assert [view.blob for view in vec[:1]] == blobs[:1]
    assert not vec[0].data.any()
    with pytest.raises(IndexError):
        vec[2]


def test_what_is_written_is_the_blobs() -> None:
    blob = Blob(create_backend("cpu"), (2, 2), "b")
    view = BlobView(blob)
    version = blob.data.version
    assert version is not None
    view.data[0] = 4
    view.diff[...] = 1
    assert blob.data.host().tolist() == [[4, 4], [0, 0]]
    assert blob.diff.host().sum() == 4
    assert blob.data.version is None  # an array that is held may be written at any time


def test_shapes() -> None:
    view = BlobView(Blob(create_backend("cpu"), (2, 3), "b"))
    assert (view.num, view.channels, view.height, view.width) == (2, 3, 1, 1)
    view.reshape(1, 2, 3, 4, 5)
    assert view.data.shape == view.shape == (1, 2, 3, 4, 5)
    with pytest.raises(ShapeError, match="at most 4 axes"):
        _ = view.num
    with pytest.raises(ShapeError, match=r"cannot take the shape \(\(1, 2\),\); expected one int"):
        view.reshape((1, 2))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"cannot take the shape \(-1,\)"):
        view.reshape(-1)
