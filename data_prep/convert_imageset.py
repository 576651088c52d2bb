"""Convert images and labels to an LMDB of Datums. Caffe: tools/convert_imageset.cpp.

Beyond Caffe: resizing by the short side, threads, resuming, and skipping corrupt images. JPEG bytes
that need no change are stored unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep import datum as datums
from data_prep.datum import COLOR, GRAY, Image, rescale_short_side, warp
from data_prep.db_record import read_record
from data_prep.image_file import ImageHeader, read_header, read_image_file
from data_prep.lmdb_io import Reader, Writer
from data_prep.progress import Progress
from data_prep.read_plan import FATAL, SKIP, default_workers
from data_prep.sampler import permutation
from data_prep.text_lines import (
    MAX_INT32,
    MIN_INT32,
    file_name,
    integer,
    read_lines,
    split_last,
)
from prototxt_gen.errors import DataError
from prototxt_gen.regular_file import check_below

Entry = tuple[str, int]
"""File name below the root folder, and label."""

_LOG = logging.getLogger("verydeep.data")
_AHEAD = 8
_JPEG_NAMES = frozenset({"jpg", "jpeg", "jpe"})


@dataclass(frozen=True)
class ConvertOptions:
    """The options of a conversion, named as the flags.

    `short_side` rescales isotropically; with `shrink_only` an image whose short side is smaller
    stays as it is. `encode_type` ("jpg", "png") implies `encoded`; without it the file's own.
    """

    gray: bool = False
    shuffle: bool = False
    seed: int = 0
    resize_height: int = 0
    resize_width: int = 0
    short_side: int = 0
    shrink_only: bool = False
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    quality: int = 95
    jobs: int | None = None
    resume: bool = False
    on_error: str = FATAL
    confine: bool = False
    """Refuse images outside of the root folder, symbolic links resolved."""
    resuming: str = "--resume"
    """How errors advise to continue a database that was interrupted."""

    def __post_init__(self) -> None:
        sizes = self.resize_height, self.resize_width
        problem = None
        if min(*sizes, self.short_side) < 0 or (max(sizes) > 0 and min(sizes) == 0):
            problem = (
                f"sizes of {sizes} and short side {self.short_side}; expected both, or neither"
            )
        elif self.short_side and max(sizes):
            problem = "resize_height and resize_width with short_side; expected one of the two ways"
        elif self.encode_type and self.encode_type.lower().lstrip(".") not in datums.ENCODINGS:
            expected = ", ".join(sorted(datums.ENCODINGS))
            problem = f"encode_type {self.encode_type!r}; expected one of {expected}"
        elif self.on_error not in (FATAL, SKIP):
            problem = f"on_error {self.on_error!r}; expected {FATAL!r} or {SKIP!r}"
        elif not 1 <= self.quality <= 100:
            problem = f"quality {self.quality}; expected 1 to 100"
        if problem is not None:
            raise DataError(f"convert_imageset: {problem}")

    def record(self, root: str | Path, entries: Sequence[Entry]) -> dict[str, Any]:
        """The values that the records of a database depend on, by the names of the options."""
        encoded = self.encoded or bool(self.encode_type)
        kind = self.encode_type.lower().lstrip(".")
        values = {
            "root": os.path.realpath(root),
            "gray": self.gray,
            "shuffle": self.shuffle,
            "seed": self.seed if self.shuffle else None,
            "resize_height": self.resize_height,
            "resize_width": self.resize_width,
            "short_side": self.short_side,
            "shrink_only": self.shrink_only if self.short_side else None,
            "check_size": self.check_size,
            "encoded": encoded,
            "encode_type": "jpg" if kind in _JPEG_NAMES else kind,
            "quality": self.quality if encoded else None,
        }
        return {**values, "images": len(entries), "list_sha256": _digest(entries)}


@dataclass
class ConvertResult:
    """The number of records, and the reason for each image that was skipped."""

    records: int = 0
    resumed_at: int = 0
    skipped: list[str] = field(default_factory=list)


def read_list(path: str | Path, pipe: bool = False) -> list[Entry]:
    """Read a LISTFILE: `name label` lines, the label after the last space or tab.

    Names keep their bytes, and white space at their start, as in Caffe; with `pipe` the list may be
    a pipe.

    Raises:
        DataError: the file cannot be read, is empty, or a label is not a 32-bit integer.
    """
    entries = []
    for number, line in read_lines(path, pipe=pipe):
        name, word = split_last(line)
        label = integer(word, MIN_INT32, MAX_INT32)
        if not name.strip() or label is None:
            raise DataError(
                f"{path}:{number}: {line!r}; expected a file name, a space and an integer label"
            )
        entries.append((file_name(name), label))
    if not entries:
        raise DataError(f"{path}: the list is empty; expected `name label` lines")
    return entries


def convert(
    root: str | Path,
    entries: Sequence[Entry],
    database: str | Path,
    options: ConvertOptions | None = None,
    progress: Progress | None = None,
) -> ConvertResult:
    """Write the images of a list to a new LMDB, in the order of the list.

    The key is `%08d_name` with the line's number, from 0. The same list, options and library
    versions give the same records with any number of threads.

    Raises:
        DataError: the database exists, the disk is full, the list or the options are not those of
            the first start, or an image cannot be used and `on_error` is fatal.
    """
    chosen = options or ConvertOptions()
    ordered = list(entries)
    if not ordered:
        raise DataError(f"{database}: no images to convert; expected a list of at least one")
    if chosen.shuffle:
        ordered = [entries[place] for place in permutation(len(entries), chosen.seed, 0)]
    if chosen.confine:
        check_below((Path(root, name) for name, _ in ordered), root)
    with Writer(database, append=chosen.resume, resuming=chosen.resuming) as writer:
        result = ConvertResult(resumed_at=_resume_at(writer, ordered))
        _check_options(writer, root, entries, chosen, result.resumed_at)
        shape = _last_shape(writer) if chosen.check_size else None
        writer.begin(chosen.record(root, entries))
        done = result.resumed_at
        with contextlib.closing(_in_order(Path(root), ordered, done, chosen)) as records:
            for name, made in records:
                record = _record_or_reason(made, chosen, shape)
                if isinstance(record, str):
                    result.skipped.append(record)
                    _LOG.warning("skipped: %s", record)
                else:
                    shape = record.shape
                    writer.put(_key(done, name), record.data)
                done += 1
                if progress is not None:
                    progress(done, len(ordered))
        writer.commit()
        result.records = writer.count
    if not result.records:
        raise DataError(
            f"{database}: none of {len(ordered)} images could be used, first: {result.skipped[0]}"
        )
    return result


def _key(line: int, name: str) -> bytes:
    """The key of a record; names that are not UTF-8 keep their bytes."""
    return f"{line:08d}_".encode() + os.fsencode(name)


def _resume_at(writer: Writer, entries: Sequence[Entry]) -> int:
    """The line to continue with; checks that the list has the last record at its line."""
    last = writer.last_key()
    if last is None:
        return 0
    digits = last.partition(b"_")[0]
    line = integer(digits.decode("ascii", "replace"), 0, MAX_INT32)
    if line is None or not 0 <= line < len(entries) or last != _key(line, entries[line][0]):
        raise DataError(
            f"{writer.path}: its last record is {last.decode(errors='replace')!r}, which this list "
            "does not have at that place; expected the list (and --shuffle, --seed) the database "
            "was begun with; use them, or begin a new database"
        )
    return line + 1


def _check_options(
    writer: Writer,
    root: str | Path,
    entries: Sequence[Entry],
    options: ConvertOptions,
    resumed_at: int,
) -> None:
    """Refuse to continue a database with options other than those of its first start."""
    record = read_record(writer.path) if options.resume else None
    if record is None or not record.options:
        if writer.count:
            _LOG.warning(
                "%s: has no record of the options that it was begun with; they are not checked",
                writer.path,
            )
        return
    begun, now = dict(record.options), options.record(root, entries)
    length = begun.get("images")
    if not options.shuffle and isinstance(length, int) and length < len(entries):
        # A longer list may continue the database.
        now |= {"images": length, "list_sha256": _digest(entries[:length])}
    if resumed_at == len(entries):
        now["root"] = begun.get("root")  # no image is read from it
    differences = [
        f"{_OPTION_NAMES.get(key, f'--{key}')} was {_shown(key, begun.get(key))}, "
        f"now {_shown(key, now[key])}"
        for key in now
        if begun.get(key) != now[key]
    ]
    if differences:
        raise DataError(
            f"{writer.path}: was begun with other options: {'; '.join(differences)}; expected the "
            f"options of the first start with {options.resuming}; repeat them, or begin a new "
            "database"
        )


_OPTION_NAMES = {"root": "the root folder", "images": "the number of images", "list_sha256": "list"}


def _shown(key: str, value: object) -> str:
    if key == "list_sha256":
        return f"{str(value)[:12]}... (SHA-256 of its names and labels)"
    return "not set" if value in (None, "") else str(value)


def _digest(entries: Sequence[Entry]) -> str:
    """The SHA-256 of the names and labels of a list, in their order."""
    digest = hashlib.sha256()
    for name, label in entries:
        digest.update(os.fsencode(name) + b"\0%d\n" % label)
    return digest.hexdigest()


def _last_shape(writer: Writer) -> tuple[int, ...] | None:
    """The shape (height, width, channels) of the last record of a database that is continued."""
    if not writer.count:
        return None
    with Reader(writer.path, incomplete=True) as reader:
        last = len(reader) - 1
        label = f"{writer.path}: record {reader.key(last)}"
        return datums.image_of(datums.parse(reader.get(last), label), label).shape


@dataclass(frozen=True)
class _Record:
    data: bytes
    shape: tuple[int, ...]


def _in_order(
    root: Path, entries: Sequence[Entry], start: int, options: ConvertOptions
) -> Generator[tuple[str, Future[_Record]], None, None]:
    """Make records in threads ahead of the writer, and yield them in the list's order."""
    jobs = default_workers() if options.jobs is None else max(1, options.jobs)
    pool = ThreadPoolExecutor(jobs, "convert")
    waiting: deque[tuple[str, Future[_Record]]] = deque()
    try:
        for name, label in entries[start:]:
            waiting.append((name, pool.submit(_make_record, root / name, label, options)))
            if len(waiting) >= _AHEAD * jobs:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _record_or_reason(
    made: Future[_Record], options: ConvertOptions, shape: tuple[int, ...] | None
) -> _Record | str:
    """The record, or the reason to skip it."""
    try:
        record = made.result()
        if options.check_size and shape is not None and record.shape != shape:
            raise DataError(
                f"an image of {record.shape} (height, width, channels); expected {shape} as the "
                "images before it; resize them, or leave check_size out"
            )
    except DataError as error:
        if options.on_error == SKIP:
            return str(error)
        raise DataError(
            f"{error}; the committed records are kept; continue with {options.resuming}, "
            "and with --on_error skip to leave such images out"
        ) from error
    return record


def _make_record(path: Path, label: int, options: ConvertOptions) -> _Record:
    content = read_image_file(path)
    original = datums.decode(content, str(path), GRAY if options.gray else COLOR)
    image = _resized(original, options, str(path))
    if not (options.encoded or options.encode_type):
        message = datums.from_array(np.ascontiguousarray(image.transpose(2, 0, 1)), label)
    else:
        header = read_header(content, str(path))
        extension = options.encode_type or _extension(path, header)
        keeps = image is original and _is_stored_so(header, extension, image.shape[2])
        data = content if keeps else datums.encode(image, extension, options.quality, str(path))
        message = datums.from_encoded(data, label)
    return _Record(message.SerializeToString(), image.shape)


def _resized(image: Image, options: ConvertOptions, where: str) -> Image:
    if options.resize_height:
        return warp(image, options.resize_height, options.resize_width, where)
    if options.short_side:
        if options.shrink_only and min(image.shape[:2]) <= options.short_side:
            return image
        return rescale_short_side(image, options.short_side, where)
    return image


def _extension(path: Path, header: ImageHeader) -> str:
    """The format of a file by its name, as in Caffe; by its content where the name has none."""
    named = path.suffix.lower().lstrip(".")
    return named if named in datums.ENCODINGS else header.format


def _is_stored_so(header: ImageHeader, extension: str, channels: int) -> bool:
    """Whether original Caffe decodes the file to these channels, and it has the wanted format.

    Caffe decodes to the channels the file has: a gray JPEG among colour ones would end its
    training, as would 16 bits or transparency. The content decides, not the name: ILSVRC has a PNG
    named JPEG.
    """
    expected = extension.lower().lstrip(".")
    expected = "jpeg" if expected in _JPEG_NAMES else expected
    return header.plain and header.format == expected and header.channels == channels
