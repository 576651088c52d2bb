"""HDF5Data: what it reads as original Caffe does, and what it refuses, by layer and file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import DataError, ShapeError, VerydeepError
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.layers import hdf5_data
from runtime.net import Net
from tests.runtime.hostile_hdf5 import ELSEWHERE, ELSEWHERE_WORDS, FORGED, with_longer_shape

LAYER = (
    'layer {{ name: "d" type: "HDF5Data" {} hdf5_data_param {{ source: "list.txt" batch_size: {} '
    "{} }} }}"
)
NAMED = r"^layer 'd' \(HDF5Data\): "


@pytest.fixture(params=["read when needed", "kept in memory"], autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test reads small files in the ways of large ones and of small ones."""
    if request.param == "read when needed":
        monkeypatch.setattr(hdf5_data, "_SMALL", 0)


def build(
    folder: Path, tops: Sequence[str] = ("x",), batch: int = 3, more: str = "", **options: Any
) -> Net:
    named = " ".join(f'top: "{name}"' for name in tops)
    param = text.parse(LAYER.format(named, batch, more), proto.NetParameter)
    context = RunContext(seed=7, root=folder, **options)
    return Net(param, proto.TRAIN, create_backend("cpu"), context)


def write(folder: Path, *files: dict[str, Any], names: Sequence[str] = ()) -> list[Path]:
    """Files of data sets, and the list that names them."""
    paths = [folder / (names[n] if names else f"{n}.h5") for n in range(len(files))]
    for path, content in zip(paths, files):
        with h5py.File(path, "w") as file:
            for name, values in content.items():
                file[name] = values
    (folder / "list.txt").write_bytes(b"".join(os.fsencode(path.name) + b"\n" for path in paths))
    return paths


def rows(net: Net, passes: int, name: str = "x") -> np.ndarray:
    found = []
    for _ in range(passes):
        net.forward()
        found.append(net.blobs[name].data.host().copy())
    return np.concatenate(found)


@pytest.mark.parametrize(
    "values",
    [
        np.array([-128, 5, 127, 0], np.int8),
        np.array([2**63 - 1, 2**24 + 1, -5, 0], np.int64),
        np.array([2**64 - 1, 3, 2**24 + 3, 0], np.uint64),
        np.array([1, -2, 300, 4], ">i2"),
        np.array([1.5, 65504, -0.25, np.nan], np.float16),
        np.array([0.1, 1e-50, 1e300, -np.inf], np.float64),
        np.array([0.1, 1e-300, 7, 8], ">f8"),
        np.arange(8).reshape(4, 2),
        np.arange(24.0).reshape(4, 1, 3, 2),
    ],
    ids=lambda values: f"{values.dtype}{values.shape}",
)
@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
def test_numbers_of_any_width_become_floats(
    tmp_path: Path, values: np.ndarray, shuffle: str
) -> None:
    """As HDF5 converts them for Caffe: rounded to the nearest float, or infinite."""
    write(tmp_path, {"x": values})
    with warnings.catch_warnings(), build(tmp_path, batch=4, more=shuffle) as net:
        warnings.simplefilter("error")
        got = rows(net, 1)
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float32)
    assert got.shape == wanted.shape
    if shuffle:
        got, wanted = (np.sort(array.reshape(4, -1), axis=0) for array in (got, wanted))
    np.testing.assert_array_equal(got, wanted)


OTHER_TYPES = [
    (np.dtype("S3"), "strings"),
    (h5py.string_dtype(), "strings"),
    (np.dtype([("a", "f4"), ("b", "i4")]), "compounds"),
    (np.dtype(np.complex64), "compounds|complex numbers"),
    (np.dtype(bool), "enumerations, such as bool"),
    (h5py.enum_dtype({"a": 1}, np.int32), "enumerations"),
    (np.dtype("V5"), "opaque bytes"),
    (h5py.vlen_dtype(np.int32), "sequences of variable length"),
    (h5py.ref_dtype, "references"),
    (h5py.regionref_dtype, "references"),
    (np.dtype(("f4", (2,))), "arrays"),
]


@pytest.mark.parametrize(("dtype", "kind"), OTHER_TYPES, ids=str)
@pytest.mark.parametrize("second", [False, True], ids=["first file", "second file"])
def test_other_types_are_refused(
    tmp_path: Path, dtype: np.dtype[Any], kind: str, second: bool
) -> None:
    path = write(tmp_path, {"x": np.zeros(3)}, {"x": np.zeros(3)})[second]
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.py_create(dtype, logical=True), space)
    words = rf"{NAMED}.*/{path.name}: data set 'x': a data set of ({kind}).*; expected integers or"
    with pytest.raises(DataError, match=words), build(tmp_path) as net:
        net.forward(), net.forward()


def test_no_shape_at_all(tmp_path: Path) -> None:
    write(tmp_path, {"x": h5py.Empty("f4")})
    with pytest.raises(DataError, match=NAMED + r".*0\.h5: data set 'x': an empty data set; expe"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        ({"x": np.zeros((4, 1))}, r"rows of shape \(1,\); expected \(2,\), as in th"),
        ({"x": np.zeros((4, 3))}, r"rows of shape \(3,\); expected \(2,\), as in the first file"),
        ({"x": np.zeros((4, 2, 2))}, r"rows of shape \(2, 2\); expected \(2,\)"),
        ({"x": np.zeros(4)}, r"rows of shape \(\); expected \(2,\)"),
        ({"x": np.float32(3)}, r"shape \(\); expected a first axis of rows"),
        ({"x": np.zeros((0, 2))}, r"rows \{'x': 0\}; expected equal numbers of at least 1"),
        ({"y": np.zeros((4, 2))}, r"no data set 'x'; expected one for each top, got y"),
        ({"x/y": np.zeros((4, 2))}, r"a group or a type, not a data set"),
        ({}, r"no data set 'x'; expected one for each top, got nothing"),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, dict) else "",
)
def test_later_files_hold_rows_of_the_same_shape(
    tmp_path: Path, later: dict[str, Any], words: str
) -> None:
    """Rows of width 1 were once spread over wider ones without a word."""
    write(tmp_path, {"x": np.ones((3, 2))}, later)
    with build(tmp_path) as net:
        assert (rows(net, 1) == 1).all()
        with pytest.raises((DataError, ShapeError), match=rf"{NAMED}.*/1\.h5: (.*: )?{words}"):
            net.forward()


def test_axes_of_length_one_do_not_matter(tmp_path: Path) -> None:
    first, second = np.arange(6.0).reshape(3, 2, 1), np.arange(6.0, 12).reshape(3, 2)
    write(tmp_path, {"x": first, "y": np.arange(3)}, {"x": second, "y": np.arange(3, 6)[:, None]})
    with build(tmp_path, ("x", "y")) as net:
        np.testing.assert_array_equal(rows(net, 2).ravel(), np.arange(12))
        net.context.pass_number = 0
        np.testing.assert_array_equal(rows(net, 2, "y"), np.arange(6))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"x": np.float32(1)}, r"0\.h5: data set 'x': shape \(\); expected a first axis of rows"),
        ({"x": np.zeros((0, 3))}, r"0\.h5: rows \{'x': 0\}; expected equal numbers of at least 1"),
        ({"x": np.zeros((3, 0))}, r"shape \(3, 0\); expected .* no axis of length 0"),
    ],
)
def test_shapes_without_rows(tmp_path: Path, content: dict[str, Any], words: str) -> None:
    write(tmp_path, content)
    with pytest.raises(ShapeError, match=NAMED + ".*" + words):
        build(tmp_path)


def test_rows_that_do_not_agree(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.zeros((3, 2)), "y": np.zeros(4)})
    with pytest.raises(ShapeError, match=NAMED + r".*rows \{'x': 3, 'y': 4\}; expected equal"):
        build(tmp_path, ("x", "y"))


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("1.h5", None, r"1\.h5: cannot be read: No such file .*correct the list"),
        ("1.h5", os.mkfifo, r"1\.h5: cannot be read: it is a named pipe; expected a regular file"),
        ("1.h5", os.mkdir, r"1\.h5: cannot be read: it is a folder; expected a regular file"),
        ("0.h5", lambda p: p.write_text("text"), r"0\.h5: HDF5 cannot read this"),
        ("list.txt", None, "list.txt: cannot be read: No such file"),
        ("list.txt", os.mkdir, "list.txt: cannot be read: it is a folder"),
        ("list.txt", os.mkfifo, "list.txt: cannot be read: it is a named pipe"),
        ("list.txt", lambda p: (p.parent / "0.h5").rename(p), "list.txt: an HDF5 file; expected"),
        ("list.txt", lambda p: p.write_text("\n \n"), "lists no files; expected the paths of"),
        ("list.txt", lambda p: p.write_text("a", "utf-16"), "list.txt: not a text file in UTF-8"),
        ("list.txt", lambda p: p.write_bytes(b"0.h5\n\0\n"), "list.txt:2: a zero byte; expected"),
        ("list.txt", lambda p: p.write_text("/dev/zero"), "/dev/zero: .* it is a character device"),
    ],
)
def test_lists_and_files_that_cannot_be_read(
    tmp_path: Path, name: str, make: Callable[[Path], object] | None, words: str
) -> None:
    write(tmp_path, {"x": np.zeros((3, 2))}, {"x": np.zeros((3, 2))})
    _replaced(tmp_path / name, make or (lambda path: None))
    with pytest.raises(DataError, match=NAMED + ".*" + words):
        build(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("a.h5", "b.h5"),
        ("with space.h5", "b.h5"),
        (os.fsdecode(b"caf\xe9.h5"), "ünï.h5"),
        (" leading.h5", "b.h5"),
    ],
)
@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"\n\n", b" \t\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lists_as_people_write_them(
    tmp_path: Path, names: tuple[str, str], ends: bytes, mark: bytes
) -> None:
    write(tmp_path, {"x": np.zeros(3)}, {"x": np.ones(3)}, names=names)
    (tmp_path / "list.txt").write_bytes(mark + ends.join(map(os.fsencode, names)) + ends)
    with build(tmp_path) as net:
        assert rows(net, 2).tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("between", [b" ", b"\t", b"  \t "])
def test_several_files_in_a_line(tmp_path: Path, between: bytes) -> None:
    """Caffe divides a list at any white space."""
    write(tmp_path, {"x": np.zeros(3)}, {"x": np.ones(3)})
    (tmp_path / "list.txt").write_bytes(between.join([b"0.h5", b"1.h5"]))
    with build(tmp_path) as net:
        assert rows(net, 2).tolist() == [0, 0, 0, 1, 1, 1]


def test_long_lines_of_short_names(tmp_path: Path) -> None:
    """A whole line is too long to be a name."""
    write(tmp_path, {"x": np.zeros(3)})
    (tmp_path / "list.txt").write_text(" ".join(["0.h5"] * 1000))
    with build(tmp_path) as net:
        assert rows(net, 2).tolist() == [0] * 6


def test_parent_and_child_read_on_by_themselves(tmp_path: Path) -> None:
    write(tmp_path, {"x": np.arange(4)}, {"x": np.arange(4, 7)})
    with build(tmp_path, batch=2) as net:
        net.forward()
        layer: Any = net.layers[0]
        opened = layer.file and layer.file.id.id
        child = os.fork()
        if not child:
            expected = (np.arange(20) + 2) % 7
            same = (rows(net, 10) == expected).all()
            reopened = layer.file is None or layer.file.id.id != opened
            os._exit(0 if same and reopened else 1)
        np.testing.assert_array_equal(rows(net, 10), (np.arange(20) + 2) % 7)
        assert os.waitpid(child, 0)[1] == 0


FAR = 7 * 10**6 + 5


def opened_files(net: Net, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that the layer opens from now on."""
    layer: Any = net.layers[0]
    opened: list[Path] = []
    open_file = layer._open

    def counted(path: Path) -> None:
        opened.append(path)
        open_file(path)

    monkeypatch.setattr(layer, "_open", counted)
    return opened


def test_one_file_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"x": np.arange(2, dtype=np.float32)})
    with build(tmp_path, batch=2000) as net:
        opened = opened_files(net, monkeypatch)
        assert rows(net, 2).tolist() == [0, 1] * 2000
        assert opened == []


@pytest.mark.parametrize("start", [1, 3, 7, 15, 70, 77, FAR])
def test_the_data_continues_at_any_pass(
    tmp_path: Path, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far passes are reached without reading all that lies before them."""
    write(tmp_path, {"x": np.arange(4)}, {"x": np.arange(4, 7)})
    with build(tmp_path, batch=2) as net:
        opened = opened_files(net, monkeypatch)
        for first in (start, start + 2, start):
            net.context.pass_number = first
            np.testing.assert_array_equal(rows(net, 10), (np.arange(20) + 2 * first) % 7)
        assert len(opened) < 50


@pytest.mark.parametrize("start", [1, 7, 15, 30])
def test_shuffled_data_continues_at_any_pass(tmp_path: Path, start: int) -> None:
    write(tmp_path, {"x": np.arange(4)}, {"x": np.arange(4, 7)})
    with build(tmp_path, batch=2, more="shuffle: true") as net:
        wanted = rows(net, start + 10)[-20:]
        net.context.pass_number = start
        np.testing.assert_array_equal(rows(net, 10), wanted)
    with build(tmp_path, batch=2, more="shuffle: true") as net:
        net.context.pass_number = start
        np.testing.assert_array_equal(rows(net, 10), wanted)


def test_far_passes_of_shuffled_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn has all rows; the first begins after 4 rows of the turn before."""
    write(tmp_path, {"x": np.arange(4)}, {"x": np.arange(4, 7)})
    with build(tmp_path, batch=2, more="shuffle: true") as net:
        opened = opened_files(net, monkeypatch)
        net.context.pass_number = FAR
        found = rows(net, 20)
        turns = found[4:39].reshape(5, 7)
        np.testing.assert_array_equal(np.sort(turns), np.tile(np.arange(7), (5, 1)))
        assert len({tuple(turn) for turn in turns}) > 1
        assert len(opened) < 30
        net.context.pass_number = 10**18
        with pytest.raises(DataError, match=NAMED + "sampler: epoch .* of 2 records; expected few"):
            net.forward()


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("second", [False, True], ids=["first file", "second file"])
def test_data_in_other_files_is_refused(tmp_path: Path, name: str, second: bool) -> None:
    paths = write(tmp_path, {"x": np.zeros((3, 6))}, {"x": np.zeros((3, 6))})
    path = paths[second]
    with h5py.File(path, "w") as file:
        ELSEWHERE[name](file, "x", tmp_path)
    words = f"{NAMED}.*/{path.name}: .*({ELSEWHERE_WORDS})"
    with pytest.raises(DataError, match=words), build(tmp_path) as net:
        net.forward(), net.forward()


def test_links_within_the_file_are_followed(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {"deep/down/values": np.arange(3.0)})
    with h5py.File(path, "a") as file:
        file["group"] = h5py.SoftLink("deep/down")
        file["x"] = h5py.SoftLink("/group/./values")
        file["y"] = file["x"]
    with build(tmp_path, ("x", "y", "deep/down/values")) as net:
        for name in ("x", "y", "deep/down/values"):
            net.context.pass_number = 0
            assert rows(net, 1, name).tolist() == [0, 1, 2]


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {"y": np.arange(3.0)})
    with h5py.File(path, "a") as file:
        file["x"] = h5py.SoftLink("/absent")
    with pytest.raises(DataError, match=NAMED + r".*no data set 'x'; expected one for each top"):
        build(tmp_path)
    with h5py.File(path, "a") as file:
        del file["x"]
        file["x"], file["z"] = h5py.SoftLink("z"), h5py.SoftLink("/x")
    with pytest.raises(DataError, match=NAMED + r".*more than 16 soft links in a row"):
        build(tmp_path)


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
def test_sizes_are_compared_with_the_file(tmp_path: Path, name: str, shuffle: str) -> None:
    (path,) = write(tmp_path, {"y": np.zeros(3)})
    with h5py.File(path, "w") as file:
        FORGED[name](file, "x", tmp_path)
    with pytest.raises(DataError, match=NAMED + r".*0\.h5: .*data set 'x': .*bytes of a file of"):
        build(tmp_path, more=shuffle)


@pytest.mark.parametrize("longer", [(1 << 60, 6), (4, 1 << 40), (1 << 62, 1 << 62), (5, 6)])
def test_sizes_that_were_forged(tmp_path: Path, longer: tuple[int, int]) -> None:
    (path,) = write(tmp_path, {"x": np.ones((4, 6))})
    with_longer_shape(path, (4, 6), longer)
    with pytest.raises(VerydeepError, match=NAMED + r".*0\.h5"):
        build(tmp_path)


def test_what_was_never_written_reads_as_zeros(tmp_path: Path) -> None:
    (path,) = write(tmp_path, {"x": np.ones(3)})
    with h5py.File(path, "a") as file:
        file.create_dataset("label", (3, 1), np.float32)
    with build(tmp_path, ("x", "label")) as net:
        assert rows(net, 1, "label").tolist() == [[0], [0], [0]]


def test_compressed_data_is_read(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    (path,) = write(tmp_path, {"y": np.ones(3)})
    for options in (
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"chunks": (7, 2), "maxshape": (None, None)},
    ):
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=values, **options)
        with build(tmp_path, batch=40) as net:
            np.testing.assert_allclose(rows(net, 1), values, atol=2e-6)


def test_lists_may_be_confined(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside.h5", tmp_path / "root"
    root.mkdir()
    write(root, {"x": np.zeros(3)})
    with h5py.File(outside, "w") as file:
        file["x"] = np.ones(3)
    (root / "link.h5").symlink_to(outside)
    (root / "inner.h5").symlink_to(root / "0.h5")
    for name in (str(outside), "../outside.h5", "link.h5"):
        (root / "list.txt").write_text(f"0.h5\n{name}\n")
        with build(root) as net:
            assert rows(net, 2).tolist() == [0, 0, 0, 1, 1, 1]
        with pytest.raises(DataError, match=NAMED + ".*outside of its root folder; expected a fil"):
            build(root, confine_lists=True)
    (root / "list.txt").write_text(f"0.h5\ninner.h5\n{root}/0.h5\n../root/0.h5\n")
    with build(root, confine_lists=True) as net:
        assert rows(net, 4).tolist() == [0] * 12
