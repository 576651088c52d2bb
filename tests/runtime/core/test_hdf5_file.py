"""Untrusted HDF5 files: weights, solver states and features read only the file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ShapeError, SnapshotError, VerydeepError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.hdf5_file import find, open_hdf5, walk
from runtime.net import Net
from runtime.paper.features import hdf5_features
from runtime.paper.features.extraction import Features
from runtime.paper.features.feature_file import read_features, write_features
from runtime.weights.solverstate import read_solverstate
from runtime.weights.weights_file import open_weights
from tests.runtime.hostile_hdf5 import (
    ELSEWHERE,
    ELSEWHERE_WORDS,
    FORGED,
    VALUES,
    with_longer_shape,
)
from tests.runtime.weights.mutants import flipped

ATTRIBUTES = {
    "net": "D",
    "weights_sha256": "00",
    "scales": [256, 384],
    "aggregate": "average",
    "flip": True,
    "layer": "fc7",
    "regions": "images",
}
Read = Callable[[Path], object]


def read_weights(path: Path) -> list[np.ndarray]:
    with open_weights(path) as layers:
        blobs = [blob for layer in layers for blob in layer.blobs.values()]
        # The shape of a dataset in other files may wait for one of these: it is read first.
        assert all(isinstance(blob.shape, tuple) for blob in blobs)
        return [blob.array() for blob in blobs]


def write_state(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["iter"], file["current_step"] = [3], [0]
        file.create_group("history")


def write_feature_base(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["names"] = np.array([b"a", b"b", b"c", b"d"])
        file["labels"] = np.arange(4)
        file["attributes"] = np.bytes_(json.dumps(ATTRIBUTES))


KINDS: dict[str, tuple[Callable[[Path], None], str, Read, type[VerydeepError]]] = {
    "weights": (lambda path: None, "data/ip/0", read_weights, SnapshotError),
    "state": (write_state, "history/0", read_solverstate, SnapshotError),
    "features": (write_feature_base, "features", read_features, DataError),
}
"""What else a file holds, the data set in question, its reader, and the error it raises."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(kind: str, folder: Path, add: Callable[[h5py.File, str, Path], None]) -> Path:
    base, name, _, _ = KINDS[kind]
    path = folder / "file.h5"
    base(path)
    with h5py.File(path, "a") as file:
        add(file, name, folder)
    return path


def add_values(file: h5py.File, name: str, folder: Path) -> None:
    file[name] = VALUES


def test_the_files_are_read_as_they_are(kind: str, tmp_path: Path) -> None:
    _, _, read, _ = KINDS[kind]
    found = read(written(kind, tmp_path, add_values))
    values = {
        "weights": lambda: found[0],
        "state": lambda: found.history[0],
        "features": lambda: found.values,
    }[kind]()
    np.testing.assert_array_equal(values, VALUES)


@pytest.mark.parametrize("way", ELSEWHERE)
def test_data_in_other_files_is_refused(kind: str, tmp_path: Path, way: str) -> None:
    _, _, read, error = KINDS[kind]
    path = written(kind, tmp_path, ELSEWHERE[way])
    with pytest.raises(error, match=rf"file\.h5: .*({ELSEWHERE_WORDS})"):
        read(path)


@pytest.mark.parametrize("way", FORGED)
def test_more_numbers_than_are_stored(kind: str, tmp_path: Path, way: str) -> None:
    _, _, read, error = KINDS[kind]
    path = written(kind, tmp_path, FORGED[way])
    with pytest.raises(error, match=r"file\.h5: .*bytes of a file of \d+"):
        read(path)


@pytest.mark.parametrize("longer", [(1 << 60, 6), (4, 1 << 40), (1 << 62, 1 << 62)])
def test_forged_shapes(kind: str, tmp_path: Path, longer: tuple[int, int]) -> None:
    _, _, read, error = KINDS[kind]
    path = written(kind, tmp_path, add_values)
    with_longer_shape(path, VALUES.shape, longer)
    with pytest.raises(error, match=r"file\.h5: "):
        read(path)


def test_special_files_are_refused(kind: str, tmp_path: Path) -> None:
    _, _, read, error = KINDS[kind]
    path = tmp_path / "pipe.h5"
    os.mkfifo(path)
    with pytest.raises(error, match=r"pipe\.h5: .*it is a named pipe; expected a regular file"):
        read(path)


@pytest.mark.parametrize("name", ["iter", "current_step", "learned_net"])
@pytest.mark.parametrize("way", ["external_link", "external_storage", "virtual"])
def test_the_small_data_sets_of_a_state(tmp_path: Path, name: str, way: str) -> None:
    path = tmp_path / "s.h5"
    write_state(path)
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        ELSEWHERE[way](file, name, tmp_path)
    with pytest.raises(SnapshotError, match=rf"s\.h5: .*({ELSEWHERE_WORDS})"):
        read_solverstate(path)


@pytest.mark.parametrize("dtype", [h5py.string_dtype(), "S8", "c8", bool, [("a", "f4")]], ids=str)
@pytest.mark.parametrize("name", ["iter", "history/0"])
def test_states_of_other_types(tmp_path: Path, dtype: object, name: str) -> None:
    path = tmp_path / "s.h5"
    write_state(path)
    with h5py.File(path, "a") as file:
        file.pop(name, None)
        file.create_dataset(name, (1,), dtype)
    with pytest.raises(SnapshotError, match=r"s\.h5: .*a data set of "):
        read_solverstate(path)


def test_the_name_of_the_weights_has_a_fixed_length(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write_state(path)
    with h5py.File(path, "a") as file:
        file["learned_net"] = "variable"
    with pytest.raises(SnapshotError, match=r"s\.h5: .*expected strings of fixed length"):
        read_solverstate(path)
    with h5py.File(path, "a") as file:
        del file["learned_net"]
        file["learned_net"] = np.bytes_(b"caf\xe9.caffemodel")
    assert os.fsencode(read_solverstate(path).learned_net) == b"caf\xe9.caffemodel"


def features_of(names: tuple[str, ...], **more: object) -> Features:
    values = np.arange(3.0 * len(names), dtype=np.float32).reshape(-1, 3)
    return Features(names, values, np.arange(len(names)), ATTRIBUTES | more)


@pytest.mark.parametrize("name", ["f.h5", "f.npz"])
def test_names_keep_their_bytes(tmp_path: Path, name: str) -> None:
    names = (os.fsdecode(b"caf\xe9.jpg"), "ünï/b c.jpg", "a" * 300, "with\ttab")
    features = features_of(names, source=os.fsdecode(b"/data/\xff"))
    write_features(tmp_path / name, features)
    found = read_features(tmp_path / name)
    assert (found.names, found.attributes) == (names, features.attributes)


def variable(path: Path, features: Features) -> None:
    """A file as h5py writes strings by itself, and as this program once did."""
    with h5py.File(path, "w") as file:
        file["features"], file["labels"] = features.values, features.labels
        names = [os.fsencode(name) for name in features.names]
        file.create_dataset("names", data=names, dtype=h5py.string_dtype())
        for name, value in features.attributes.items():
            file.attrs[name] = value


def test_strings_of_variable_length_are_read(tmp_path: Path) -> None:
    features = features_of(("ünï", os.fsdecode(b"caf\xe9.jpg"), "", "b c"))
    variable(tmp_path / "f.h5", features)
    found = read_features(tmp_path / "f.h5")
    assert (found.names, found.attributes) == (features.names, features.attributes)
    np.testing.assert_array_equal(found.values, features.values)


@pytest.mark.parametrize(
    ("limit", "message"),
    [(0.75, "could not be read in 0"), (60, "reading its strings does not end")],
    ids=["elapsed", "processor"],
)
def test_reading_of_damaged_strings_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, message: str
) -> None:
    """If an object of the global heap has length 0, HDF5 reads it again and again."""
    path = tmp_path / "f.h5"
    variable(path, features_of(("a", "b")))
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    end = heap + 16
    while data[end : end + 2] != b"\0\0":
        size = int.from_bytes(data[end + 8 : end + 16], "little")
        end += 16 + -(-size // 8) * 8
    data[end + 8 : end + 16] = bytes(8)
    path.write_bytes(data)
    monkeypatch.setattr(hdf5_features, "_TIMEOUT", limit)
    with pytest.raises(DataError, match=rf"f\.h5: the features cannot be read: .*{message}"):
        read_features(path)


def test_links_of_every_kind_in_weights(tmp_path: Path) -> None:
    """Groups that hold themselves end, and soft links lead to the same numbers."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file["data/conv/0"] = VALUES
        file["data/other/0"] = h5py.SoftLink("/data/conv/0")
        file["data/conv/itself"] = file["data/conv"]
        file["data/absent"] = h5py.SoftLink("/nowhere")
    with open_weights(path) as layers:
        found = {layer.name: [blob.array() for blob in layer.blobs.values()] for layer in layers}
    np.testing.assert_array_equal(found["conv"][0], VALUES)
    np.testing.assert_array_equal(found["other"][0], VALUES)
    with open_hdf5(path) as file:
        names = [name for name, _ in walk(file)]
        assert names == sorted(names)
        assert find(file, "data/conv/itself/itself/0").shape == VALUES.shape
        assert find(file, "data/conv/0/more") is None


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file[b"data/caf\xe9/0"] = VALUES
    with open_weights(path) as layers:
        assert [os.fsencode(layer.name) for layer in layers] == [b"caf\xe9"]
    with pytest.raises(SnapshotError, match=r"no solver state; expected .*, got data; give a"):
        read_solverstate(path)


def read_rows(path: Path) -> None:
    """Two passes of an HDF5Data layer over a file."""
    (path.parent / "list.txt").write_text(path.name)
    layer = 'layer {{ name: "d" type: "HDF5Data" top: "{}" top: "{}" hdf5_data_param {{ {} }} }}'
    settings = 'source: "list.txt" batch_size: 3'
    layers = layer.format("x", "y", settings) + layer.format("z", "s", settings + " shuffle: true")
    param = text.parse(layers, proto.NetParameter)
    context = RunContext(root=path.parent)
    with Net(param, proto.TRAIN, create_backend("cpu"), context) as net:
        net.forward()
        net.forward()


def rows_file(folder: Path) -> bytes:
    path = folder / "rows.h5"
    with h5py.File(path, "w") as file:
        file["x"] = VALUES
        file.create_dataset("y", data=np.arange(4), compression="gzip", shuffle=True)
        file.create_dataset("group/z", data=VALUES, chunks=(2, 4), maxshape=(None, 6))
        file["z"], file["s"] = h5py.SoftLink("group/z"), h5py.SoftLink("/x")
    read_rows(path)
    return path.read_bytes()


def features_file(folder: Path) -> bytes:
    path = folder / "f.h5"
    write_features(path, features_of(("a", "b c", "d" * 30)))
    return path.read_bytes()


MUTANTS: dict[str, tuple[Callable[[Path], bytes], Read]] = {
    "rows": (rows_file, read_rows),
    "features": (features_file, read_features),
}


def refused(kind: str, folder: Path, count: int, seed: int) -> int:
    make, read = MUTANTS[kind]
    found = 0
    for number, mutant in enumerate(flipped(make(folder), count, seed)):
        path = folder / f"{number}.h5"
        path.write_bytes(mutant)
        try:
            read(path)
        except DataError:
            found += 1
        except ShapeError:
            found += kind == "rows"
        path.unlink()
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_damaged_files_are_typed_errors(tmp_path: Path, name: str) -> None:
    assert refused(name, tmp_path, 16, 0) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_many_damaged_files_are_typed_errors(tmp_path: Path, name: str) -> None:
    assert refused(name, tmp_path, 1000, 1) > 100
