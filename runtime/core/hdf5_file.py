"""HDF5 files: reading files that may be damaged or malicious, and replacing files atomically.

A malicious file may refer to other files (external links, external storage, virtual data sets),
load plugins as filters, or declare more elements than it stores. HDF5 itself may not terminate, or
may overwrite memory, if strings of variable length are damaged. Therefore links are followed here
one by one, and the layout of a data set is checked before it is read.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen.destination import current_folder
from prototxt_gen.errors import SnapshotError, VerydeepError
from prototxt_gen.files import atomic_write
from prototxt_gen.regular_file import RegularFile

SIGNATURE = b"\x89HDF\r\n\x1a\n"

_MAX_DEFLATION = 1032
"""The largest expansion of a byte by inflating."""
_MAX_LINKS = 16
"""The most soft links in one path; the limit of HDF5."""
_SAFE_FILTERS = frozenset({1, 2, 3, 32000})
"""Filters of HDF5 and h5py: deflate (gzip), shuffle, fletcher32, lzf."""
_UNSAFE_FILTERS = {4: "szip", 5: "nbit", 6: "scaleoffset"}
"""Filters of HDF5 that may overwrite memory if the data is damaged."""
_FAULTS = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
)


@contextlib.contextmanager
def reading(label: str, error: type[VerydeepError] = SnapshotError) -> Iterator[None]:
    """Convert the exceptions of HDF5 and h5py into `error`.

    Raises:
        error: HDF5 or h5py cannot read the file.
    """
    try:
        yield
    except _FAULTS as cause:
        # AttributeError: the file has a group where a data set is expected.
        raise error(
            f"{label}: HDF5 cannot read this: {cause}; the file is damaged or of another type; "
            "copy or download it again"
        ) from cause


@contextlib.contextmanager
def open_hdf5(
    path: str | os.PathLike[str], error: type[VerydeepError] = SnapshotError
) -> Iterator[Any]:
    """Open a file for reading.

    Raises:
        error: the file is missing or not an HDF5 file.
    """
    file = open_hdf5_file(path, error)
    with file:
        yield file


def open_hdf5_file(path: str | os.PathLike[str], error: type[VerydeepError] = SnapshotError) -> Any:
    """Open a file for reading; the caller closes it.

    Raises:
        error: see `open_hdf5`.
    """
    import h5py

    if not os.path.lexists(path):
        raise error(
            f"{path}: no such file; expected an HDF5 file; check the path "
            f"(the current folder is {current_folder()})"
        )
    RegularFile(path, error).check()
    with reading(str(path), error):
        return h5py.File(path, "r")


def find(group: Any, name: str) -> Any:
    """Look up a group or data set; None if missing. Soft links are followed within the file.

    Raises:
        ValueError: a link leads out of the file, or soft links form a cycle.
    """
    return _find(group, name, [_MAX_LINKS])


def _find(group: Any, name: str, left: list[int]) -> Any:
    import h5py

    item = group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        if not isinstance(item, h5py.Group) or not item.id.links.exists(_encoded(part)):
            return None
        item = _follow(item, part, left)
        if item is None:
            return None
    return item


def _follow(group: Any, name: str, left: list[int]) -> Any:
    """Resolve one link of a group."""
    import h5py

    kind = group.id.links.get_info(_encoded(name)).type
    if kind == h5py.h5l.TYPE_HARD:
        return group[_encoded(name)]
    if kind != h5py.h5l.TYPE_SOFT:
        link = "an external link" if kind == h5py.h5l.TYPE_EXTERNAL else "a user-defined link"
        raise ValueError(
            f"'{name}' is {link}, which may lead to any file; expected all data in the file itself"
        )
    if not left[0]:
        raise ValueError(f"'{name}': more than {_MAX_LINKS} soft links in a row")
    left[0] -= 1
    target = _text(group.id.links.get_val(_encoded(name)))
    return _find(group.file["/"] if target.startswith("/") else group, target, left)


def names_in(group: Any) -> str:
    """The names in a group, for messages."""
    return ", ".join(_names(group)) or "nothing"


def walk(root: Any) -> Iterator[tuple[str, Any]]:
    """Names and items below a group, in alphabetical order, a group before its contents.

    Soft links are followed within the file; a group with several links is entered once.

    Raises:
        ValueError: a link leads out of the file.
    """
    import h5py

    entered = {_address(root)}
    open_groups = [("", root, iter(_names(root)))]
    while open_groups:
        prefix, group, names = open_groups[-1]
        name = next(names, None)
        if name is None:
            open_groups.pop()
            continue
        item = _follow(group, name, [_MAX_LINKS])
        if item is None:
            continue
        yield prefix + name, item
        if isinstance(item, h5py.Group) and _address(item) not in entered:
            entered.add(_address(item))
            open_groups.append((f"{prefix}{name}/", item, iter(_names(item))))


def _names(group: Any) -> list[str]:
    return sorted(_text(name) for name in group)


def _address(group: Any) -> Any:
    import h5py

    return h5py.h5o.get_info(group.id).addr


def _text(name: str | bytes) -> str:
    """Convert a name from h5py to text; h5py returns bytes if a name is not UTF-8."""
    return name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def check_numbers(
    dataset: Any, label: str, error: type[VerydeepError] = SnapshotError, spare: int = 0
) -> None:
    """Check that an item is a data set of numbers. See `numbers_fault`.

    Raises:
        error: it is of another type, is stored in other files, or declares more than is stored.
    """
    with reading(label, error):
        fault = numbers_fault(dataset, spare)
    if fault:
        raise error(
            f"{label}: {fault}; expected integers or floats, stored in the file itself; write it "
            "again, or copy it again if it is damaged"
        )


def numbers_fault(dataset: Any, spare: int = 0) -> str:
    """Why an item is not a data set of numbers stored in its file; empty if it is one.

    Numbers are what Caffe reads: integers and floats of any width, and no strings, compounds,
    enumerations (numpy's bool) or complex numbers. `spare` bytes may be missing: elements that were
    never written have the fill value.

    Raises:
        ValueError: it is stored in other files, or needs a plugin.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        return "a group or a type, not a data set"
    _check_layout(dataset)
    kind = dataset.id.get_type().get_class()
    if kind not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        return f"a data set of {_class_name(kind)}"
    if dataset.shape is None:
        return "an empty data set"
    return _storage_fault(dataset, spare)


def _check_layout(dataset: Any) -> None:
    """Check that the data is in the file itself and can be read without plugins."""
    import h5py

    plan = dataset.id.get_create_plist()
    kind = plan.get_layout()
    # Reading the shape of a virtual data set opens its source files.
    if kind == h5py.h5d.VIRTUAL or plan.get_external_count():
        storage = "a virtual data set" if kind == h5py.h5d.VIRTUAL else "in external storage"
        raise ValueError(f"it is {storage}, which may read any file; expected all data in the file")
    for index in range(plan.get_nfilters()):
        code = plan.get_filter(index)[0]
        if code not in _SAFE_FILTERS:
            name = _UNSAFE_FILTERS.get(code, f"{code}, a plugin")
            raise ValueError(
                f"it is compressed by the filter {name}, which is unsupported; expected gzip, lzf, "
                "shuffle, fletcher32 or none; repack the file"
            )


def _storage_fault(dataset: Any, spare: int) -> str:
    """How shape or chunks exceed the stored size; empty if they do not."""
    width, shape, chunks = dataset.dtype.itemsize, dataset.shape, dataset.chunks
    claimed = width * math.prod(shape)
    size = os.fstat(dataset.file.id.get_vfd_handle()).st_size
    stored, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
    largest = max(claimed, 0 if chunks is None else width * math.prod(chunks))
    complete = stored <= size and (offset is None or offset + claimed <= size)
    most = stored if chunks is None else stored * _MAX_DEFLATION
    if complete and largest <= max(most, spare):
        return ""
    return f"shape {shape} of {dataset.dtype} in {stored} bytes of a file of {size}"


def _class_name(kind: int) -> str:
    import h5py

    names = {
        h5py.h5t.STRING: "strings",
        h5py.h5t.COMPOUND: "compounds",
        h5py.h5t.ENUM: "enumerations, such as bool",
        h5py.h5t.BITFIELD: "bit fields",
        h5py.h5t.OPAQUE: "opaque bytes",
        h5py.h5t.REFERENCE: "references",
        h5py.h5t.VLEN: "sequences of variable length",
        h5py.h5t.ARRAY: "arrays",
        h5py.h5t.TIME: "times",
        getattr(h5py.h5t, "COMPLEX", None): "complex numbers",
    }
    return names.get(kind, "an unknown type")


def holds_variable_strings(dataset: Any) -> bool:
    """Whether a data set has strings of variable length, which HDF5 cannot read safely."""
    import h5py

    kind = dataset.id.get_type() if isinstance(dataset, h5py.Dataset) else None
    return kind is not None and bool(kind.get_class() == h5py.h5t.STRING and kind.is_variable_str())


def read_strings(dataset: Any) -> npt.NDArray[np.bytes_]:
    """Read fixed-length strings, without trailing zero bytes.

    Shapes: the data set's.

    Raises:
        ValueError: it is of another type, or declares more than is stored.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError("a group or a type; expected a data set of strings")
    _check_layout(dataset)
    kind = dataset.id.get_type()
    if kind.get_class() != h5py.h5t.STRING or kind.is_variable_str() or dataset.shape is None:
        raise ValueError("expected strings of fixed length")
    fault = _storage_fault(dataset, 0)
    if fault:
        raise ValueError(fault)
    return np.asarray(dataset[()], np.bytes_)


def read_text(dataset: Any) -> bytes:
    """Read a data set of exactly one fixed-length string.

    Raises:
        ValueError: see `read_strings`.
    """
    values = read_strings(dataset)
    if values.size != 1:
        raise ValueError(f"{values.size} strings; expected one")
    return bytes(values.reshape(-1)[0])


@contextlib.contextmanager
def atomic_hdf5(
    path: str | os.PathLike[str],
    error: type[VerydeepError] = SnapshotError,
    durable: bool = True,
) -> Iterator[Any]:
    """Write an HDF5 file that replaces the one at `path` when the block ends without an exception.

    Raises:
        error: see `atomic_write`.
    """
    import h5py

    with atomic_write(path, "w+b", error, durable) as stream:
        try:
            with h5py.File(stream, "w") as file:
                yield file
        except RuntimeError as cause:
            raise OSError(str(cause)) from cause
