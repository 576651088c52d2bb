"""Bundles: what is written is read again, and damaged ones are refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import runtime
from prototxt_gen.errors import SnapshotError
from runtime.bundle.bundle import INDEX, Bundle, is_bundle
from tests.runtime.bundle.bundles import LABELS, small_bundle


@pytest.fixture(params=["small.verydeep", "small.verydeep.zip"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return small_bundle(tmp_path).write(tmp_path / "out" / request.param)


def test_a_bundle_is_read_as_it_was_written(written: Path, tmp_path: Path) -> None:
    first, loaded = small_bundle(tmp_path), Bundle.load(written)
    for name in ("preprocessing", "labels", "name", "licence", "metrics", "provenance"):
        assert getattr(loaded, name) == getattr(first, name)
    assert loaded.weights.read_bytes() == first.weights.read_bytes()
    assert loaded.model.read_text() == first.model.read_text()
    assert is_bundle(written)


def test_runtime_load_takes_the_weights_of_a_bundle(written: Path, tmp_path: Path) -> None:
    plain = small_bundle(tmp_path)
    images = np.random.default_rng(0).normal(size=(2, 3, 12, 12))
    with runtime.load(plain.model, plain.weights) as one, runtime.load(written) as other:
        assert np.array_equal(one.predict(images)["prob"], other.predict(images)["prob"])
        assert other.bundle is not None
        assert other.bundle.labels == LABELS


def test_a_bundle_replaces_a_bundle(written: Path, tmp_path: Path) -> None:
    before = written.read_bytes() if written.is_file() else (written / INDEX).read_bytes()
    Bundle.load(written).write(written)
    after = written.read_bytes() if written.is_file() else (written / INDEX).read_bytes()
    assert before == after


def test_a_copy_of_a_bundle_is_a_bundle(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zip" if written.is_file() else tmp_path / "copy"
    Bundle.load(written).write(copy)
    assert Bundle.load(copy).labels == LABELS


def test_a_zip_of_the_folder_is_a_bundle(tmp_path: Path) -> None:
    small_bundle(tmp_path).write(tmp_path / "a" / "m.verydeep")
    made = shutil.make_archive(str(tmp_path / "m"), "zip", tmp_path / "a", "m.verydeep")
    assert is_bundle(made)
    assert Bundle.load(made).labels == LABELS


@pytest.mark.parametrize("part", ["deploy.prototxt", "weights.caffemodel", "labels.txt", INDEX])
def test_a_missing_part_is_named(tmp_path: Path, part: str) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    (folder / part).unlink()
    with pytest.raises(SnapshotError, match=part):
        Bundle.load(folder)


@pytest.mark.parametrize("part", ["deploy.prototxt", "weights.caffemodel", "labels.txt"])
def test_another_digest_is_refused(tmp_path: Path, part: str) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    data = bytearray((folder / part).read_bytes())
    data[-2] ^= 1
    (folder / part).write_bytes(data)
    with pytest.raises(SnapshotError, match=rf"{part}: sha256 .*; expected .*changed"):
        Bundle.load(folder)
    (folder / part).write_bytes(data + b"x")
    with pytest.raises(SnapshotError, match=rf"{part}: \d+ bytes; expected \d+"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "format: expected 'verydeep-bundle', got 'other'"),
        ("version", 2, "version: expected 1, got 2"),
        ("files", [], "files: expected an object"),
        ("files", {"../x": {"bytes": 1, "sha256": ""}}, "names of files in the bundle"),
        ("files", {"x": {"bytes": "1"}}, "names of files in the bundle"),
        ("files", {}, "lists no deploy.prototxt"),
        ("preprocessing", None, "preprocessing: expected an object"),
        ("preprocessing", {"crop": [12]}, "preprocessing.crop: expected height and width"),
        ("preprocessing", {"crop": [12, 0]}, "preprocessing.crop"),
        ("preprocessing", {"crop": [9, 9], "size": 3}, "preprocessing.size"),
        ("preprocessing", {"crop": [9, 9], "channel_order": "RBG"}, "channel_order"),
        ("preprocessing", {"crop": [9, 9], "mean_value": [1, 2]}, "mean_value"),
        ("preprocessing", {"crop": [9, 9], "mean_value": [300]}, "mean_value"),
        ("preprocessing", {"crop": [9, 9], "scale": 0}, "scale: expected a number above 0"),
        ("preprocessing", {"crop": [9, 9], "short_side": 1.5}, "short_side"),
        ("name", 3, "name: expected text"),
        ("metrics", [], "metrics: expected an object"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    index = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_text(json.dumps(index | {key: value}))
    with pytest.raises(SnapshotError, match=message):
        Bundle.load(folder)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b""])
def test_an_unreadable_index_is_refused(tmp_path: Path, content: bytes) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    (folder / INDEX).write_bytes(content)
    with pytest.raises(SnapshotError, match=INDEX):
        Bundle.load(folder)


def test_a_zip_that_inflates_to_more_than_listed_is_refused(tmp_path: Path) -> None:
    folder = small_bundle(tmp_path).write(tmp_path / "m.verydeep")
    bomb = tmp_path / "m.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for path in folder.iterdir():
            file.write(path, path.name) if path.suffix != ".caffemodel" else file.writestr(
                path.name, bytes(10_000_000)
            )
    with pytest.raises(SnapshotError, match="more than the"):
        Bundle.load(bomb)


@pytest.mark.parametrize("cut", [10, 200, -30])
def test_a_truncated_zip_is_refused(tmp_path: Path, cut: int) -> None:
    path = small_bundle(tmp_path).write(tmp_path / "m.zip")
    path.write_bytes(path.read_bytes()[:cut])
    assert not is_bundle(path)
    with pytest.raises(SnapshotError, match=r"m\.zip: cannot be unpacked"):
        Bundle.load(path)


def test_other_content_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(SnapshotError, match="no bundle"):
        small_bundle(tmp_path).write(tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"
    assert len(list((tmp_path / "mine").iterdir())) == 1


def test_missing_weights_leave_the_old_bundle(tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    folder = bundle.write(tmp_path / "m.verydeep")
    bundle.weights.unlink()
    with pytest.raises(SnapshotError, match="caffemodel"):
        bundle.write(folder)
    assert Bundle.load(folder).labels == LABELS


def test_paths_that_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("name: 'x'")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "text", tmp_path / "folder", tmp_path / "absent"):
        assert not is_bundle(path)
        with pytest.raises(SnapshotError):
            Bundle.load(path)
