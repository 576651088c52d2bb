"""Solver state in .solverstate and .solverstate.h5 files. Caffe: sgd_solver.cpp.

The h5 layout: datasets /iter, /learned_net, /current_step and /history/<i>.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import SnapshotError
from prototxt_gen.files import atomic_write
from runtime.core.hdf5_file import (
    atomic_hdf5,
    find,
    names_in,
    numbers_fault,
    open_hdf5,
    read_text,
    reading,
)
from runtime.weights.caffemodel import MAX_BYTES
from runtime.weights.hdf5 import SUFFIX as HDF5_SUFFIX
from runtime.weights.hdf5 import DatasetBlob
from runtime.weights.weight_blob import blob_pieces, read_blob
from runtime.weights.weights_file import is_hdf5
from runtime.weights.wire_format import (
    BYTES,
    VARINT,
    Piece,
    bytes_field,
    map_file,
    signed,
    varint_field,
)

_ITER, _LEARNED_NET, _HISTORY, _CURRENT_STEP = 1, 2, 3, 4
_WIRES = {_ITER: VARINT, _LEARNED_NET: BYTES, _HISTORY: BYTES, _CURRENT_STEP: VARINT}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SolverState:
    """The state of a solver that Caffe saves with the weights."""

    iter: int = 0
    learned_net: str = ""
    """The path of the weights when the snapshot was written."""
    current_step: int = 0
    """The step of the learning rate policy multistep."""
    history: list[Array] = field(default_factory=list)
    """In Caffe's order: the first history blob of every weight blob, then the second of every one.
    Shapes: those of the weight blobs."""


def read_solverstate(path: str | os.PathLike[str]) -> SolverState:
    """Read a file of either format, which its content decides.

    The arrays of a .solverstate are views of the mapped file.

    Raises:
        SnapshotError: the file is missing, truncated, damaged, or no solver state.
    """
    return _read_hdf5(path) if is_hdf5(path) else _read_binary(path)


def write_solverstate(
    path: str | os.PathLike[str],
    iteration: int,
    learned_net: str,
    current_step: int,
    history: Iterable[Array],
) -> None:
    """Write a solver state, as HDF5 if the name ends in .h5.

    `history` is iterated once, so that one array at a time needs to be on the host.

    Shapes: history like the weight blobs, in the order of SolverState.

    Raises:
        SnapshotError: the disk is full or read-only, or the file would be over protobuf's 2 GB.
    """
    if Path(path).suffix == HDF5_SUFFIX:
        _write_hdf5(path, iteration, learned_net, current_step, history)
        return
    total = 0
    with atomic_write(path, "wb", SnapshotError) as stream:
        for piece in _pieces(iteration, learned_net, current_step, history):
            total += len(piece)
            if total > MAX_BYTES:
                raise SnapshotError(
                    f"{path}: too large; expected at most 2 GB, protobuf's limit, got more; "
                    "set snapshot_format: HDF5"
                )
            stream.write(piece)


def _pieces(
    iteration: int, learned_net: str, current_step: int, history: Iterable[Array]
) -> Iterator[Piece]:
    yield varint_field(_ITER, iteration)
    yield bytes_field(_LEARNED_NET, os.fsencode(learned_net))
    for array in history:
        yield from blob_pieces(_HISTORY, array)
    yield varint_field(_CURRENT_STEP, current_step)


def _read_binary(path: str | os.PathLike[str]) -> SolverState:
    reader = map_file(path)
    numbers = {_ITER: 0, _CURRENT_STEP: 0}
    learned_net, seen = "", False
    history: list[Array] = []
    for item in reader.fields(0, reader.size):
        wire = _WIRES.get(item.number)
        if wire is None:
            continue
        if item.wire != wire:
            raise reader.error(
                item.tag,
                f"a solver state's field {item.number}, of wire type {wire}",
                f"wire type {item.wire}, as in a .caffemodel",
            )
        seen = True
        if item.number in numbers:
            numbers[item.number] = signed(item.value)
        elif item.number == _LEARNED_NET:
            learned_net = os.fsdecode(reader.raw(item.start, item.stop))
        else:
            label = f"{path}: history {len(history)}"
            history.append(read_blob(reader, item.start, item.stop, label).array())
    if not seen or min(numbers.values()) < 0:
        raise SnapshotError(
            f"{path}: no solver state; expected the iteration and the history, got neither; give "
            "the .solverstate of a snapshot"
        )
    return SolverState(numbers[_ITER], learned_net, numbers[_CURRENT_STEP], history)


def _read_hdf5(path: str | os.PathLike[str]) -> SolverState:
    import h5py

    with open_hdf5(path) as file, reading(str(path)):
        group, learned_net = find(file, "history"), find(file, "learned_net")
        if find(file, "iter") is None or not isinstance(group, h5py.Group):
            raise SnapshotError(
                f"{path}: no solver state; expected datasets iter, current_step and history, got "
                f"{names_in(file)}; give a .solverstate.h5"
            )
        history = [
            DatasetBlob.of(f"{path}: history {index}", _member(group, str(index))).array()
            for index in range(len(group))
        ]
        return SolverState(
            _number(file, "iter"),
            "" if learned_net is None else os.fsdecode(read_text(learned_net)),
            _number(file, "current_step"),
            history,
        )


def _member(group: Any, name: str) -> Any:
    item = find(group, name)
    if item is None:
        raise ValueError(f"the dataset {group.name}/{name} is missing")
    return item


def _number(file: Any, name: str) -> int:
    dataset = find(file, name)
    if dataset is None:
        return 0
    fault = numbers_fault(dataset)
    if fault:
        raise ValueError(f"{name} is {fault}, expected one integer")
    if math.prod(dataset.shape) != 1:
        raise ValueError(f"{name} has {math.prod(dataset.shape)} values, expected 1")
    value = int(np.asarray(dataset[()]).reshape(-1)[0])
    if value < 0:
        raise ValueError(f"{name} is {value}, expected at least 0")
    return value


def _write_hdf5(
    path: str | os.PathLike[str],
    iteration: int,
    learned_net: str,
    current_step: int,
    history: Iterable[Array],
) -> None:
    import h5py

    with atomic_hdf5(path) as file:
        file.create_dataset("iter", data=np.array([iteration], np.int32))
        # Caffe reads the stored bytes as a C string, which must end with a NUL.
        name = os.fsencode(learned_net)
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(name) + 1)
        space = h5py.h5s.create(h5py.h5s.SCALAR)
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, space)
        dataset.write(space, space, np.array(name, f"S{len(name) + 1}"))
        file.create_dataset("current_step", data=np.array([current_step], np.int32))
        group = file.create_group("history")
        for index, array in enumerate(history):
            group.create_dataset(str(index), data=array)
