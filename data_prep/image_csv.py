"""Images with their classes in a CSV file.

    path,label            also image, file or filename; also class or category
    a/1.jpg,cat

A column `split` with `train`, `val` or `test` divides the images; so do two files train.csv and
val.csv in one folder. Paths are relative to the folder of the file. Labels are names, or numbers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data_prep.data_set import ListedSet, Split, listed_set
from data_prep.image_folder import VAL_FOLDERS
from data_prep.text_lines import file_name, read_text
from prototxt_gen.errors import DataError

SUFFIXES = (".csv", ".tsv")
_PATHS = ("path", "image", "image_path", "filepath", "filename", "file_name", "file", "name")
_LABELS = ("label", "class", "class_name", "category", "labels", "target")
_SPLITS = ("split", "set", "subset")
_TRAIN_FILE = "train.csv"
_VAL_FILES = tuple(f"{name}.csv" for name in VAL_FOLDERS)
_SINGLE_FILES = ("labels.csv", "images.csv", "annotations.csv")

_Row = tuple[str, str, str]
"""Path, label and split."""


def find_csv(folder: Path) -> list[Path]:
    """The files of a folder in this layout: train.csv and perhaps val.csv, or one file of both."""
    train = folder / _TRAIN_FILE
    if train.is_file():
        held = [folder / name for name in _VAL_FILES if (folder / name).is_file()]
        return [train, *held[:1]]
    return [folder / name for name in _SINGLE_FILES if (folder / name).is_file()][:1]


def open_image_csv(files: Sequence[Path], split: Split | None = None) -> ListedSet:
    """Open one file, or a file of training images and one of held-out images.

    Raises:
        DataError: a file cannot be read or lacks a column, or the classes are incomplete.
    """
    root = files[0].parent
    rows = [_read(path) for path in files]
    training = [row for row in rows[0] if row[2] == "train"]
    held = [row for row in rows[0] if row[2] != "train"]
    if len(rows) > 1:
        held += rows[1]
    classes = _sorted_classes({label for _, label, _ in training})
    label_of = {name: label for label, name in enumerate(classes)}
    unknown = sorted({label for _, label, _ in held} - set(label_of))
    if unknown:
        raise DataError(
            f"{files[-1]}: held-out images of the class {unknown[0]!r}, which has no training "
            f"images; expected one of {', '.join(classes[:5])}; add training images of this class"
        )
    entries, val = (
        [(file_name(path), label_of[label]) for path, label, _ in part] for part in (training, held)
    )
    return listed_set(root, classes, entries, val or None, split or Split())


def _sorted_classes(names: set[str]) -> list[str]:
    """Names in alphabetical order, or numbers in theirs."""
    if all(name.isascii() and name.isdecimal() and len(name) < 18 for name in names):
        return sorted(names, key=int)
    return sorted(names)


def _read(path: Path) -> list[_Row]:
    text = read_text(path, "the list of images")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[_Row] = []
    try:
        header = [word.strip().lower() for word in next(reader, [])]
        columns = _columns(header, path)
        for words in reader:
            if any(word.strip() for word in words):
                rows.append(_row(words, columns, f"{path}:{reader.line_num}"))
    except csv.Error as cause:
        raise DataError(
            f"{path}:{reader.line_num}: {cause}; expected lines of path and label; export the file "
            "again"
        ) from cause
    if not rows:
        raise DataError(f"{path}: no images; expected lines of path and label; export it again")
    return rows


def _columns(header: Sequence[str], path: Path) -> tuple[int, int, int | None]:
    """The places of path, label and split."""
    places = []
    for kind, names in (("the path", _PATHS), ("the label", _LABELS)):
        place = next((header.index(name) for name in names if name in header), None)
        if place is None:
            raise DataError(
                f"{path}:1: no column of {kind}; expected one of {', '.join(names)}, got "
                f"{', '.join(header[:10]) or 'an empty file'}; add a header such as path,label"
            )
        places.append(place)
    split = next((header.index(name) for name in _SPLITS if name in header), None)
    return places[0], places[1], split


def _row(words: Sequence[str], columns: tuple[int, int, int | None], place: str) -> _Row:
    last = max(column for column in columns if column is not None)
    if len(words) <= last:
        raise DataError(
            f"{place}: {len(words)} values; expected at least {last + 1}; complete the line"
        )
    path, label = words[columns[0]].strip(), words[columns[1]].strip()
    if not path or not label or "\n" in label:
        raise DataError(
            f"{place}: path {path!r}, label {label!r}; expected both, on one line; complete it"
        )
    split = "train" if columns[2] is None else words[columns[2]].strip().lower()
    known = {"train": "train", "training": "train"} | dict.fromkeys(VAL_FOLDERS, "val")
    if split not in known:
        raise DataError(f"{place}: split {split!r}; expected train, val or test; correct it")
    return path, label, known[split]
