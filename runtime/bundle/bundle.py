"""A net with its weights and everything that is needed to use them, as a folder or one zip file.

bundle.json            format, names, sizes and digests of the other files, preprocessing,
licence, metrics, provenance
deploy.prototxt        the net
weights.caffemodel     its weights, also .h5 or .npz
labels.txt             the names of the classes, one per line; optional
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.text_lines import read_lines
from prototxt_gen.errors import SnapshotError
from prototxt_gen.file_groups import replace_together
from prototxt_gen.files import atomic_write, atomic_write_text, typed_errors
from prototxt_gen.reading import read_json, short_repr
from prototxt_gen.regular_file import RegularFile
from runtime.bundle.preprocessing import Preprocessing, read_preprocessing
from runtime.core.npz_arrays import DAMAGES
from runtime.solvers.resume_state import sha256_of

INDEX = "bundle.json"
SUFFIX = ".verydeep"
MODEL = "deploy.prototxt"
LABELS = "labels.txt"
_WEIGHTS = "weights"
_WEIGHT_SUFFIXES = (".caffemodel", ".h5", ".npz")
_FORMAT = "verydeep-bundle"
_VERSION = 1
_MOST_INDEX = 1 << 24
_CHUNK = 1 << 20
_ZIP = b"PK\x03\x04"
_ADVICE = "write the bundle again, or copy it again from its source"


@dataclass(frozen=True)
class Bundle:
    """The paths of a net and its weights, and the facts that are needed to use them."""

    model: Path
    """The deploy prototxt."""
    weights: Path
    preprocessing: Preprocessing
    labels: tuple[str, ...] = ()
    """The name of every class; empty if they are unknown."""
    name: str = ""
    licence: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Measured errors, as fractions, and what they were measured on."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Data, spec, weights, commit and seed that the weights come from."""
    unpacked: tempfile.TemporaryDirectory[str] | None = field(default=None, compare=False)
    """The folder of an unpacked zip file, which is removed with the last reference to it."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bundle:
        """Open a bundle, and compare its files with their digests.

        A zip file is unpacked into a temporary folder, which exists as long as the bundle.

        Raises:
            SnapshotError: the path is no bundle, or a part is missing, damaged or another one.
        """
        folder = Path(path)
        if folder.is_dir():
            return _read(folder, None)
        unpacked = _unpack(folder)
        try:
            return _read(Path(unpacked.name), unpacked, str(path))
        except BaseException:
            unpacked.cleanup()
            raise

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the bundle as a folder, or as one file if the path ends with `.zip`.

        An existing bundle is replaced.

        Raises:
            SnapshotError: a part cannot be read, or the path cannot be written or holds something
                else than a bundle.
        """
        target = Path(path)
        names = {MODEL: self.model, f"{_WEIGHTS}{_suffix_of(self.weights)}": self.weights}
        if target.suffix.lower() == ".zip":
            with tempfile.TemporaryDirectory() as folder:
                self._fill(Path(folder), names, str(target))
                _zip(Path(folder), target)
            return target
        _refuse_foreign(target)
        with typed_errors(target, SnapshotError):
            target.mkdir(parents=True, exist_ok=True)
        with replace_together(target / "bundle", SnapshotError) as folder:
            self._fill(folder, names, str(target))
        return target

    def _fill(self, folder: Path, names: Mapping[str, Path], target: str) -> None:
        for name, source in names.items():
            with (
                RegularFile(source, SnapshotError, advice="check the path").open() as stream,
                atomic_write(folder / name, "wb", SnapshotError) as copy,
            ):
                shutil.copyfileobj(stream, copy, _CHUNK)
        if self.labels:
            text = "".join(f"{_one_line(label, target)}\n" for label in self.labels)
            atomic_write_text(folder / LABELS, text, SnapshotError)
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in sorted(folder.iterdir())
            if file.name[0] != "."
        }
        index = {
            "format": _FORMAT,
            "version": _VERSION,
            "name": self.name,
            "files": files,
            "preprocessing": self.preprocessing.to_json(),
            "licence": self.licence,
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
        }
        atomic_write_text(folder / INDEX, json.dumps(index, indent=2) + "\n", SnapshotError)


def is_bundle(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder with the index of a bundle, or a zip file with one."""
    place = Path(path)
    try:
        if place.is_dir():
            return place.suffix == SUFFIX or (place / INDEX).is_file()
        if not place.is_file():
            return False
        with place.open("rb") as stream:
            if stream.read(len(_ZIP)) != _ZIP:
                return False
        with zipfile.ZipFile(place) as file:
            return any(PurePosixPath(name).name == INDEX for name in file.namelist())
    except (OSError, ValueError, *DAMAGES):
        return False


def _read(
    folder: Path, unpacked: tempfile.TemporaryDirectory[str] | None, shown: str | None = None
) -> Bundle:
    """The bundle in a folder; `shown` is the path in errors."""
    place = shown or str(folder)
    index = _index(folder / INDEX, place)
    files = _files(index, place)
    for name, facts in files.items():
        _check(folder / name, facts, f"{place}: {name}")
    weights = [name for name in files if Path(name).stem == _WEIGHTS]
    for name, present in ((MODEL, MODEL in files), (f"{_WEIGHTS}.*", len(weights) == 1)):
        if not present:
            raise SnapshotError(f"{place}: {INDEX} lists no {name}; expected one; {_ADVICE}")
    labels: tuple[str, ...] = ()
    if LABELS in files:
        lines = read_lines(folder / LABELS, "the labels", keep_empty=True)
        labels = tuple(label for _, label in lines)
    return Bundle(
        folder / MODEL,
        folder / weights[0],
        read_preprocessing(index.get("preprocessing"), f"{place}: {INDEX}"),
        labels,
        _text(index, "name", place),
        _text(index, "licence", place),
        _object(index, "metrics", place),
        _object(index, "provenance", place),
        unpacked,
    )


def _index(path: Path, place: str) -> dict[str, Any]:
    try:
        index = read_json(path, _MOST_INDEX, regular=True)
    except FileNotFoundError as cause:
        raise SnapshotError(
            f"{place}: no {INDEX}; expected a bundle, a folder or zip file that `finetune`, `run` "
            "or `train` wrote; check the path"
        ) from cause
    except (OSError, ValueError) as cause:
        raise SnapshotError(f"{place}: {INDEX} cannot be read: {cause}; {_ADVICE}") from cause
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        got = index.get("format") if isinstance(index, dict) else index
        raise SnapshotError(
            f"{place}: {INDEX}: format: expected {_FORMAT!r}, got {short_repr(got)}; {_ADVICE}"
        )
    version = index.get("version")
    if version != _VERSION:
        raise SnapshotError(
            f"{place}: {INDEX}: version: expected {_VERSION}, got {short_repr(version)}; "
            "read it with the version of verydeep that wrote it"
        )
    return index


def _files(index: Mapping[str, Any], place: str) -> dict[str, Mapping[str, Any]]:
    """The checked names of the parts, with their sizes and digests."""
    files = index.get("files")
    if not isinstance(files, dict):
        raise SnapshotError(
            f"{place}: {INDEX}: files: expected an object, got {short_repr(files)}; {_ADVICE}"
        )
    for name, facts in files.items():
        plain = name not in ("", "..", INDEX) and "/" not in name and "\\" not in name
        valid = (
            isinstance(facts, dict)
            and isinstance(facts.get("bytes"), int)
            and isinstance(facts.get("sha256"), str)
        )
        if not plain or not valid:
            raise SnapshotError(
                f"{place}: {INDEX}: files: expected names of files in the bundle with bytes and "
                f"sha256, got {short_repr(name)}: {short_repr(facts)}; {_ADVICE}"
            )
    return files


def _check(path: Path, facts: Mapping[str, Any], shown: str) -> None:
    """Compare a part with its size and digest."""
    if not path.is_file():
        raise SnapshotError(f"{shown}: the part is missing; expected a file; {_ADVICE}")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise SnapshotError(
            f"{shown}: {size} bytes; expected {facts['bytes']}, as in {INDEX}; {_ADVICE}"
        )
    digest = sha256_of(path)
    if digest != facts["sha256"].lower():
        raise SnapshotError(
            f"{shown}: sha256 {digest}; expected {short_repr(facts['sha256'], 80)}, as in {INDEX}; "
            f"the file was changed; {_ADVICE}"
        )


def _text(index: Mapping[str, Any], key: str, place: str) -> str:
    value = index.get(key, "")
    if not isinstance(value, str):
        raise _wrong(place, key, "text", value)
    return value


def _object(index: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    value = index.get(key, {})
    if not isinstance(value, dict):
        raise _wrong(place, key, "an object", value)
    return value


def _wrong(place: str, key: str, expected: str, got: object) -> SnapshotError:
    return SnapshotError(
        f"{place}: {INDEX}: {key}: expected {expected}, got {short_repr(got)}; {_ADVICE}"
    )


def _zip(folder: Path, target: Path) -> None:
    """Store a folder's files in one zip file; weights do not compress."""
    with (
        atomic_write(target, "wb", SnapshotError) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as file,
    ):
        for path in sorted(folder.iterdir()):
            # A fixed time, so that the same content gives the same bytes.
            info = zipfile.ZipInfo(path.name)
            info.external_attr = 0o644 << 16
            info.file_size = path.stat().st_size
            with path.open("rb") as source, file.open(info, "w") as part:
                shutil.copyfileobj(source, part, _CHUNK)


def _unpack(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Unpack the parts that the index of a zip file lists, at most with their sizes."""
    source = RegularFile(path, SnapshotError, expected="a bundle", advice="check the path")
    unpacked = tempfile.TemporaryDirectory(prefix="verydeep-bundle-")
    folder = Path(unpacked.name)
    try:
        with source.open() as stream, zipfile.ZipFile(stream) as file:
            inner = _inner_folder(file, path)
            _unpack_part(file, inner + INDEX, folder / INDEX, _MOST_INDEX)
            files = _files(_index(folder / INDEX, str(path)), str(path))
            for name, facts in files.items():
                if inner + name in file.namelist():
                    _unpack_part(file, inner + name, folder / name, facts["bytes"])
    except BaseException as cause:
        unpacked.cleanup()
        if isinstance(cause, (OSError, ValueError, *DAMAGES)):
            raise SnapshotError(
                f"{path}: cannot be unpacked: {cause}; expected a bundle; {_ADVICE}"
            ) from cause
        raise
    return unpacked


def _inner_folder(file: zipfile.ZipFile, path: Path) -> str:
    """The folder of a zip file that holds the bundle: its root, or its only folder."""
    places = [name for name in file.namelist() if PurePosixPath(name).name == INDEX]
    if len(places) != 1 or places[0].count("/") > 1:
        raise SnapshotError(
            f"{path}: {len(places) or 'no'} {INDEX}; expected one, at the root or in the only "
            f"folder of the zip file; {_ADVICE}"
        )
    return places[0].removesuffix(INDEX)


def _unpack_part(file: zipfile.ZipFile, name: str, target: Path, most: int) -> None:
    with file.open(name) as source, target.open("wb") as copy:
        left = most
        while block := source.read(min(_CHUNK, left + 1)):
            left -= len(block)
            if left < 0:
                raise ValueError(f"{name} has more than the {most} bytes that are expected")
            copy.write(block)


def _refuse_foreign(target: Path) -> None:
    if not target.exists() or (target / INDEX).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise SnapshotError(
            f"{target}: holds something that is no bundle; expected it to be absent, empty or a "
            "bundle; choose another path"
        )


def _suffix_of(weights: Path) -> str:
    suffix = weights.suffix.lower()
    return suffix if suffix in _WEIGHT_SUFFIXES else _WEIGHT_SUFFIXES[0]


def _one_line(label: str, target: str) -> str:
    if "\n" in label or "\r" in label:
        raise SnapshotError(
            f"{target}: the label {short_repr(label)} has several lines; expected one; rename it"
        )
    return label
