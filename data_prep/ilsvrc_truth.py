"""The lists of ILSVRC-2012: synsets, and the labels of the validation images.

A label is the line number of its synset in the synset file, from 0. In ILSVRC's files this is the
alphabetical order of the wnids, which original Caffe and the released VGG nets use. The development
kit has other numbers (ILSVRC2012_ID, from 1), so its ground truth needs its table of numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.mat5 import read_structs
from data_prep.text_lines import (
    MAX_INT32,
    file_name,
    integer,
    read_lines,
    split_first,
    split_last,
)
from prototxt_gen.errors import DataError

KIT_FOLDERS = (
    "",
    "data",
    "devkit/data",
    "ILSVRC2012_devkit_t12/data",
    "ILSVRC/devkit/data",
    "caffe_ilsvrc12",
)
"""The folders that are searched for lists, below the root of the data set, in this order."""
SYNSET_FILES = ("synset_words.txt", "LOC_synset_mapping.txt", "synsets.txt")
ILSVRC_CLASSES = 1000


@dataclass(frozen=True)
class Synset:
    """A class: its wnid, such as n01440764, and its words, such as "tench, Tinca tinca"."""

    wnid: str
    words: str


def find_file(root: Path, names: Sequence[str]) -> tuple[Path | None, list[Path]]:
    """Find the first of `names` that exists; returns it and the paths that were tried."""
    tried = [root / folder / name for name in names for folder in KIT_FOLDERS]
    return next((path for path in tried if path.is_file()), None), tried


def listed(paths: Sequence[Path], most: int = 8) -> str:
    """Paths as text for a message."""
    text = ", ".join(str(path) for path in paths[:most])
    return text + (f" and {len(paths) - most} more" if len(paths) > most else "")


def read_synsets(path: Path) -> tuple[Synset, ...]:
    """Read `wnid words` lines; the words are optional.

    Raises:
        DataError: the file is missing or empty, or contains a class twice.
    """
    synsets: dict[str, Synset] = {}
    for number, line in read_lines(path):
        wnid, words = split_first(line)
        if wnid in synsets:
            raise DataError(f"{path}:{number}: {wnid} occurs twice; expected each class once")
        synsets[wnid] = Synset(wnid, words or wnid)
    if not synsets:
        raise DataError(f"{path}: no synsets; expected a line `wnid words` for each class")
    return tuple(synsets.values())


def read_name_list(path: Path, classes: int) -> dict[str, int]:
    """Read the `name label` lines of Caffe's lists, such as val.txt, to a label by file name.

    Raises:
        DataError: a line has no label, or a label outside 0 .. classes-1.
    """
    labels: dict[str, int] = {}
    for number, line in read_lines(path):
        name, word = split_last(line)
        label = integer(word, 0, classes - 1)
        if not name or label is None:
            raise DataError(
                f"{path}:{number}: {line!r}; expected a file name and a label of 0 to {classes - 1}"
            )
        labels[Path(file_name(name)).name] = label
    return labels


def read_solution(path: Path, label_of: dict[str, int]) -> dict[str, int]:
    """Read LOC_val_solution.csv (ImageId, then `wnid xmin ymin xmax ymax ...`).

    Raises:
        DataError: a line has another form, or a wnid is not a class.
    """
    labels: dict[str, int] = {}
    for number, line in read_lines(path):
        row = _cells(line, f"{path}:{number}")
        if number == 1 and row[:1] == ["ImageId"]:
            continue
        wnid = row[1].split(" ")[0] if len(row) > 1 else ""
        if wnid not in label_of:
            raise DataError(
                f"{path}:{number}: {wnid!r} is not a class; expected an image and a wnid of the "
                "synset file"
            )
        labels[file_name(f"{row[0]}.JPEG")] = label_of[wnid]
    return labels


def _cells(line: str, name: str) -> list[str]:
    """The cells of a line of comma-separated values."""
    try:
        return next(csv.reader([line]))
    except csv.Error as cause:
        raise DataError(
            f"{name}: {cause}; expected an image and its boxes, with a comma between them"
        ) from cause


def read_ground_truth(path: Path, root: Path, synsets: Sequence[Synset]) -> list[int]:
    """Read the class numbers of the development kit, one line for each image in the order of names.

    Data sets with other classes have no such kit: number i is then line i of the synset file.

    Raises:
        DataError: the table of numbers is missing or lacks a class, or a line is not a number.
    """
    label_of = {synset.wnid: label for label, synset in enumerate(synsets)}
    table, tried = _kit_table(root)
    if table is None:
        if len(synsets) == ILSVRC_CLASSES:
            raise DataError(
                f"{path}: its numbers are the development kit's, which need its table; looked for "
                f"{listed(tried)}; unpack ILSVRC2012_devkit_t12 there, or give a val.txt of "
                "`name label` lines"
            )
        table = {number: synset.wnid for number, synset in enumerate(synsets, 1)}
    labels = []
    for number, line in read_lines(path):
        wnid = table.get(integer(line.strip(), 0, MAX_INT32) or 0)
        if wnid is None or wnid not in label_of:
            raise DataError(
                f"{path}:{number}: {line!r} is not the number of a class; "
                f"expected 1 to {len(synsets)}"
            )
        labels.append(label_of[wnid])
    return labels


def _kit_table(root: Path) -> tuple[dict[int, str] | None, list[Path]]:
    """The wnid of each ILSVRC2012_ID, from map_clsloc.txt or meta.mat."""
    text, tried_text = find_file(root, ("map_clsloc.txt",))
    matlab, tried_matlab = find_file(root, ("meta.mat",))
    tried = tried_text + tried_matlab
    if text is not None:
        table = {}
        for number, line in read_lines(text):
            parts = line.split()
            place = integer(parts[1], 1, MAX_INT32) if len(parts) > 1 else None
            if place is None:
                raise DataError(f"{text}:{number}: {line!r}; expected `wnid number words`")
            table[place] = parts[0]
        return table, tried
    return (None if matlab is None else _read_meta(matlab)), tried


def _read_meta(path: Path) -> dict[int, str]:
    table: dict[int, str] = {}
    try:
        for row in read_structs(path, "synsets", ("ILSVRC2012_ID", "WNID")):
            number, wnid = row["ILSVRC2012_ID"], row["WNID"]
            if not isinstance(number, float) or not isinstance(wnid, str):
                raise ValueError(f"a synset {number!r} of wnid {wnid!r}")
            table[int(number)] = wnid
    except (OSError, ValueError, OverflowError) as cause:
        raise DataError(
            f"{path}: not the development kit's meta.mat ({cause}); "
            "unpack ILSVRC2012_devkit_t12 again"
        ) from cause
    return table
