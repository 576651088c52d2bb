from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import SnapshotError
from runtime.weights import solverstate
from runtime.weights.solverstate import SolverState, read_solverstate, write_solverstate
from tests.runtime.weights.mutants import cut, flipped, survive

GOLDEN = Path(__file__).parents[2] / "golden" / "caffemodel" / "lenet_iter_25.solverstate"
SHAPES = [(4, 3, 3, 3), (4,), (5, 36), (5,)]


def history() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def same(state: SolverState, other: SolverState) -> bool:
    numbers = (state.iter, state.learned_net, state.current_step)
    return numbers == (other.iter, other.learned_net, other.current_step) and all(
        np.array_equal(mine, theirs)
        for mine, theirs in zip(state.history, other.history, strict=True)
    )


def write(path: Path, state: SolverState) -> None:
    write_solverstate(path, state.iter, state.learned_net, state.current_step, state.history)


def test_original_state_is_read_and_written_byte_by_byte(tmp_path: Path) -> None:
    state = read_solverstate(GOLDEN)
    expected = proto.SolverState.FromString(GOLDEN.read_bytes())
    assert (state.iter, state.learned_net) == (25, "snap_iter_25.caffemodel")
    assert state.current_step == expected.current_step == 1
    for array, blob in zip(state.history, expected.history, strict=True):
        assert array.shape == tuple(blob.shape.dim)
        np.testing.assert_array_equal(array.ravel(), np.array(blob.data, np.float32))
    write(tmp_path / "out", state)
    assert (tmp_path / "out").read_bytes() == GOLDEN.read_bytes()


@pytest.mark.parametrize("name", ["s.solverstate", "s.solverstate.h5"])
@pytest.mark.parametrize("learned_net", ["", "P_iter_7.caffemodel", "naïve/ü.caffemodel"])
def test_state_comes_back(tmp_path: Path, name: str, learned_net: str) -> None:
    state = SolverState(7, learned_net, 2, history())
    write(tmp_path / name, state)
    assert same(read_solverstate(tmp_path / name), state)
    # The content determines the kind of a file.
    (tmp_path / name).rename(tmp_path / "other")
    assert same(read_solverstate(tmp_path / "other"), state)


def test_hdf5_is_laid_out_as_caffe_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "s.solverstate.h5"
    write(path, SolverState(300, "net.caffemodel", 1, history()))
    with h5py.File(path) as file:
        assert sorted(file) == ["current_step", "history", "iter", "learned_net"]
        assert (file["iter"].shape, file["iter"].dtype, file["iter"][0]) == ((1,), np.int32, 300)
        assert [file["history"][str(i)].shape for i in range(4)] == SHAPES
        kind = file["learned_net"].id.get_type()
        # Caffe takes the bytes for a C string: the 0 at its end must be stored.
        assert kind.get_size() == len("net.caffemodel") + 1
        assert kind.get_strpad() == h5py.h5t.STR_NULLTERM


def test_history_of_doubles_and_of_old_dimensions(tmp_path: Path) -> None:
    path = tmp_path / "s.solverstate"
    doubles = history()[0].astype(np.float64)
    write_solverstate(path, 1, "", 0, [doubles])
    np.testing.assert_array_equal(read_solverstate(path).history[0], doubles, strict=True)
    old = proto.SolverState(iter=1)
    old.history.add(num=1, channels=1, height=2, width=2, data=[1, 2, 3, 4])
    path.write_bytes(old.SerializeToString())
    assert read_solverstate(path).history[0].shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"\xa2\x06\x00", "no solver state; expected the iteration and the history, got neither"),
        (
            proto.NetParameter(name="net").SerializeToString(),
            "expected a solver state's field 1, of wire type 0, got wire type 2, as in a .caffemo",
        ),
        (
            proto.SolverState(iter=1, history=[proto.BlobProto(data=[1, 2])]).SerializeToString(),
            "s: history 0: shape and numbers disagree; expected 1 numbers for shape (), got 2;",
        ),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "no solver state;"),
    ],
)
def test_what_is_no_state(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "s").write_bytes(data)
    with pytest.raises(SnapshotError) as caught:
        read_solverstate(tmp_path / "s")
    assert text in str(caught.value)


def test_hdf5_that_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["data/conv/0"] = np.zeros(3)
    with pytest.raises(
        SnapshotError, match=r"no solver state; expected datasets iter, current_step and history, g"
    ):
        read_solverstate(path)
    with h5py.File(path, "w") as file:
        file["iter"] = [1, 2]
        file.create_group("history")
    with pytest.raises(SnapshotError, match=r"HDF5 cannot read this: iter has 2 values, expected "):
        read_solverstate(path)
    with h5py.File(path, "w") as file:
        file["iter"] = [1]
        file["history/1"] = np.zeros(3)
    with pytest.raises(SnapshotError, match=r"s\.h5: HDF5 cannot read this: "):
        read_solverstate(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(SnapshotError, match=r"s\.h5: HDF5 cannot read this: .*; copy or download"):
        read_solverstate(path)


def test_a_forged_dataset_is_not_allocated(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["iter"] = [1]
        # Declared and never written: HDF5 would make up the zeros.
        file.create_group("history").create_dataset("0", shape=(1 << 30,), dtype=np.float32)
    with pytest.raises(
        SnapshotError, match=r"history 0: no weights; expected at most .* got shape .* in 0 bytes"
    ):
        read_solverstate(path)


def test_protobuf_s_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solverstate, "MAX_BYTES", 100)
    with pytest.raises(SnapshotError, match=r"too large; .* set snapshot_format: HDF5"):
        write(tmp_path / "s.solverstate", SolverState(history=history()))
    assert list(tmp_path.iterdir()) == []


def test_a_state_cut_anywhere_or_with_bits_turned_over(tmp_path: Path) -> None:
    path = tmp_path / "small"
    write(path, SolverState(7, "P_iter_7.caffemodel", 2, history()[:2]))
    data = path.read_bytes()
    # Cut behind a field, it is a whole message with less in it.
    assert survive(cut(data), read_solverstate, tmp_path / "s") >= len(data) - 5
    assert survive(flipped(data, 200), read_solverstate, tmp_path / "s") > 20


@pytest.mark.slow
def test_many_states_with_bits_turned_over(tmp_path: Path) -> None:
    mutants = flipped(GOLDEN.read_bytes(), 2000, seed=1)
    assert survive(mutants, read_solverstate, tmp_path / "s") > 50
