"""Data sets of HDF5 files that lead elsewhere, or claim what is not there."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

VALUES = np.arange(24, dtype=np.float32).reshape(4, 6)

Write = Callable[[Any, str, Path], None]
"""Writes a data set of this name into an open file, with what it leads to in a folder."""


def external_link(file: Any, name: str, folder: Path) -> None:
    with h5py.File(folder / "elsewhere.h5", "w") as other:
        other["x"] = VALUES
    file[name] = h5py.ExternalLink(str(folder / "elsewhere.h5"), "/x")


def soft_link_to_an_external_one(file: Any, name: str, folder: Path) -> None:
    external_link(file, "away", folder)
    file[name] = h5py.SoftLink("/away")


def soft_link_through_an_external_one(file: Any, name: str, folder: Path) -> None:
    with h5py.File(folder / "elsewhere.h5", "w") as other:
        other["group/x"] = VALUES
    file["away"] = h5py.ExternalLink(str(folder / "elsewhere.h5"), "/group")
    file[name] = h5py.SoftLink("/away/x")


def link_to_a_pipe(file: Any, name: str, folder: Path) -> None:
    """Opening the pipe would wait for ever."""
    os.mkfifo(folder / "pipe")
    file[name] = h5py.ExternalLink(str(folder / "pipe"), "/x")


def external_storage(file: Any, name: str, folder: Path) -> None:
    (folder / "raw").write_bytes(VALUES.tobytes())
    file.create_dataset(
        name, VALUES.shape, np.float32, external=[(str(folder / "raw"), 0, VALUES.nbytes)]
    )


def virtual(file: Any, name: str, folder: Path) -> None:
    with h5py.File(folder / "elsewhere.h5", "w") as other:
        other["x"] = VALUES
    layout = h5py.VirtualLayout(VALUES.shape, np.float32)
    layout[...] = h5py.VirtualSource(str(folder / "elsewhere.h5"), "x", VALUES.shape)
    file.create_virtual_dataset(name, layout)


def virtual_of_a_pipe(file: Any, name: str, folder: Path) -> None:
    """Its extent depends on its source: asking for the shape opens that."""
    os.mkfifo(folder / "pipe")
    layout = h5py.VirtualLayout((4, 6), np.float32, maxshape=(None, 6))
    source = h5py.VirtualSource(str(folder / "pipe"), "x", (4, 6), maxshape=(None, 6))
    layout[0 : h5py.h5s.UNLIMITED : 1, :] = source[0 : h5py.h5s.UNLIMITED : 1, :]
    file.create_virtual_dataset(name, layout)


def plugin(file: Any, name: str, folder: Path) -> None:
    """A filter that HDF5 would look for among its plugins."""
    _filtered(file, name, 32001)


def nbit(file: Any, name: str, folder: Path) -> None:
    """A filter that overwrites memory where its data is damaged, as szip does."""
    _filtered(file, name, 5)


def scaleoffset(file: Any, name: str, folder: Path) -> None:
    file.create_dataset(name, data=VALUES, scaleoffset=3)


def _filtered(file: Any, name: str, code: int) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(VALUES.shape)
    plan.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (1, 2))
    space = h5py.h5s.create_simple(VALUES.shape)
    group = file.require_group(name.rpartition("/")[0] or "/")
    made = h5py.h5d.create(
        group.id, name.rpartition("/")[2].encode(), h5py.h5t.IEEE_F32LE, space, plan
    )
    made.write_direct_chunk((0, 0), VALUES.tobytes(), 0)


ELSEWHERE: dict[str, Write] = {
    each.__name__: each
    for each in (
        external_link,
        soft_link_to_an_external_one,
        soft_link_through_an_external_one,
        link_to_a_pipe,
        external_storage,
        virtual,
        virtual_of_a_pipe,
        plugin,
        nbit,
        scaleoffset,
    )
}
ELSEWHERE_WORDS = r"which may lead to any file|which may read any file|by the filter"


def endless_chunks(file: Any, name: str, folder: Path) -> None:
    """A data set of 2**60 rows, of which one chunk is stored."""
    made = file.create_dataset(name, (4, 6), np.float32, chunks=(4, 6), maxshape=(None, 6))
    made[...] = VALUES
    made.resize((1 << 60, 6))


def wide_chunks(file: Any, name: str, folder: Path) -> None:
    """Few rows in chunks of nearly 4 GB: reading one row asks for the whole chunk."""
    file.create_dataset(
        name, (4, 6), np.float32, chunks=(170_000_000, 6), maxshape=(None, 6), compression="gzip"
    )


def unwritten(file: Any, name: str, folder: Path) -> None:
    file.create_dataset(name, (1 << 40, 6), np.float32)


FORGED: dict[str, Write] = {
    each.__name__: each for each in (endless_chunks, wide_chunks, unwritten)
}


def with_longer_shape(path: Path, shape: tuple[int, ...], longer: tuple[int, ...]) -> None:
    """Forge the sizes of a data set in the bytes of a file."""
    data = path.read_bytes()
    old, new = (struct.pack(f"<{len(dims)}Q", *dims) for dims in (shape, longer))
    assert data.count(old) >= 1
    path.write_bytes(data.replace(old, new))
