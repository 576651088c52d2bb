from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from prototxt_gen.errors import SnapshotError
from runtime.weights.hdf5 import check_layer_names, open_hdf5_weights, write_hdf5_weights
from runtime.weights.weights_file import open_weights
from tests.runtime.weights.mutants import flipped, survive

GOLDEN = Path(__file__).parents[2] / "golden" / "caffemodel" / "conv.caffemodel.h5"


def _read_whole(path: Path) -> None:
    with open_weights(path) as layers:
        for layer in layers:
            for blob in layer.blobs.values():
                blob.array()


def test_names_with_slashes_and_scalars_come_back(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_hdf5_weights(path, [("inception_3a/1x1", [data, np.float32([7])], [data, data[0]])])
    with open_hdf5_weights(path) as layers:
        found = {layer.name: layer.blobs for layer in layers if layer.blobs}
        assert list(found) == ["inception_3a/1x1"]
        matrix, scalar = found["inception_3a/1x1"].values()
        np.testing.assert_array_equal(matrix.array(), data)
        out = np.zeros((2, 3))
        matrix.copy_to(out)
        np.testing.assert_array_equal(out, data)
        assert (scalar.shape, scalar.fits((1,)), scalar.fits(())) == ((1,), True, False)
        with pytest.raises(SnapshotError, match="has no gradient; expected weights only; read the"):
            matrix.copy_diff_to(out)


ONE = [np.ones(1, np.float32)]
APART = [
    ["a", "A", "a b", "a\\b", "é", "data", "0"],
    ["inception/1x1", "inception/3x3", "inception"],
    ["blk", "blk/1"],
    ["blk", "blk/x/0"],
    ["..a", "a..", "...", "a.b/c.d"],
]
TOGETHER = [
    (["blk", "blk/0"], "layers 'blk' and 'blk/0' meet in HDF5; .* got 'blk/0' for a weight of the"),
    (["blk/0", "blk"], "layers 'blk' and 'blk/0' meet in HDF5"),
    (["blk", "blk/0/deeper"], "layers 'blk' and 'blk/0/deeper' meet in HDF5; .* got 'blk/0' for"),
    (["a", "b", "a"], "two layers of one name would be one in HDF5; .* got 'a' twice"),
    *(
        (["ok", name], "layer .* has no place in HDF5; expected a name in UTF-8 whose parts")
        for name in (
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "a/.",
            "a/../b",
            "a\0b",
            "\udcff",
        )
    ),
]


@pytest.mark.parametrize("names", APART, ids=str)
def test_names_that_are_paths_of_their_own(tmp_path: Path, names: list[str]) -> None:
    check_layer_names([(name, [0]) for name in names], "here")
    write_hdf5_weights(tmp_path / "w.h5", [(name, ONE, ONE) for name in names])
    with open_hdf5_weights(tmp_path / "w.h5") as layers:
        assert {layer.name for layer in layers if layer.blobs} == set(names)


@pytest.mark.parametrize(("names", "complaint"), TOGETHER, ids=str)
def test_names_that_meet_or_are_no_paths(names: list[str], complaint: str) -> None:
    with pytest.raises(SnapshotError, match=f"here: {complaint}"):
        check_layer_names([(name, [0]) for name in names], "here")


def test_layers_without_weights_have_no_datasets_to_meet() -> None:
    check_layer_names([("blk", []), ("blk/0", [0]), ("blk", [1, 2]), ("blk/3", [])], "here")


def test_compressed_datasets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("data/ip/0", data=np.ones((100, 100)), compression="gzip")
    _read_whole(path)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("weights", np.zeros(3), "no weights; expected a group /data, got weights; give a .caffem"),
        ("data", np.zeros(3), "no weights; expected a group /data, got data;"),
        ("data/conv/0", np.array([b"text"]), "layer 'conv', blob 0: no weights; expected at most"),
    ],
)
def test_files_without_weights(tmp_path: Path, name: str, value: np.ndarray, text: str) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file[name] = value
    with pytest.raises(SnapshotError) as caught:
        _read_whole(tmp_path / "w.h5")
    assert text in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(SnapshotError, match=r"w\.h5: no such file; expected an HDF5 file; check"),
        open_hdf5_weights(tmp_path / "w.h5"),
    ):
        pass


def test_files_with_bits_turned_over(tmp_path: Path) -> None:
    assert survive(flipped(GOLDEN.read_bytes(), 150), _read_whole, tmp_path / "w.h5") > 30


@pytest.mark.slow
def test_many_files_with_bits_turned_over(tmp_path: Path) -> None:
    mutants = flipped(GOLDEN.read_bytes(), 3000, seed=1)
    assert survive(mutants, _read_whole, tmp_path / "w.h5") > 600
