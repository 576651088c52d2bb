"""`verydeep data`: inspect databases, and write a small data set of photographs."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from data_prep.db_record import completion, read_record
from data_prep.inspect_db import DatabaseInfo, inspect
from data_prep.lmdb_io import Reader
from data_prep.photo_set import CLASSES, TRAIN_IMAGES, VAL_IMAGES, write_photo_set
from data_prep.progress import show_progress
from prototxt_gen.errors import DataError, UsageError
from runtime.logs.glog import setup_logging

NAME = "data"
SUMMARY = "show what is in an LMDB, or write a small data set of photographs"
EXAMPLE = "verydeep data info ilsvrc12_train_lmdb"

_BAR = 40
_MOST_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "show what is in an LMDB: records, sizes, encodings, labels"
    info = actions.add_parser("info", help=summary, description=summary)
    info.add_argument("database", metavar="DB", help="an LMDB of Datums")
    info.add_argument(
        "--decode", action="store_true", help="decode every image, to find damaged ones"
    )
    info.add_argument("--json", action="store_true", help="print the result as JSON")
    summary = "write five classes of crops of packaged photographs, to try fine-tuning on"
    photos = actions.add_parser("photos", help=summary, description=summary)
    photos.add_argument("folder", metavar="DIR", help="an absent or empty folder")
    for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
        photos.add_argument(
            f"--{split}",
            type=int,
            default=count,
            metavar="N",
            help=f"{split} images of each class (default: %(default)s)",
        )
    photos.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def run(args: argparse.Namespace) -> int:
    setup_logging()
    return _info(args) if args.action == "info" else _photos(args)


def _photos(args: argparse.Namespace) -> int:
    if not 0 <= args.seed < 1 << 63:
        raise UsageError(f"--seed: expected a number from 0, got {args.seed}; correct it")
    folder = write_photo_set(args.folder, args.train, args.val, args.seed)
    print(f"{folder}: {', '.join(CLASSES)}; {args.train} + {args.val} images each")
    return 0


def _info(args: argparse.Namespace) -> int:
    """Exit status 1 if a record cannot be used or the database is incomplete."""
    record = read_record(Path(args.database))
    try:
        reader = Reader(args.database, incomplete=True)
    except DataError as error:
        if record is None or record.complete:
            raise
        raise DataError(
            f"{args.database}: incomplete: the program that writes it was interrupted before its "
            f"first commit, or still runs ({error}); expected all records; {completion(record)}"
        ) from error
    with reader, show_progress("reading", "records") as progress:
        info = inspect(reader, args.decode, progress, record)
    print(json.dumps(info.as_dict(), indent=2) if args.json else _text(args.database, info))
    return 1 if info.problems or (record is not None and not record.complete) else 0


def _text(database: str, info: DatabaseInfo) -> str:
    values = info.as_dict()
    mean_size = info.value_bytes / info.records
    lines = [
        *_incomplete(info),
        f"{database}: {info.records} records, {info.value_bytes:,} bytes, {mean_size:,.0f} each",
        "encoding: " + ", ".join(f"{count} {name}" for name, count in info.encodings.items()),
        f"channels: {', '.join(map(str, values['channels']))}",
        _sizes(values),
        f"keys: {', '.join(info.first_keys)} ...",
        *_labels(info.labels),
    ]
    if info.problems:
        lines.append(f"{len(info.problems)} records cannot be used:")
        lines += [f"  {problem}" for problem in info.problems[:_MOST_LINES]]
    return "\n".join(lines)


def _incomplete(info: DatabaseInfo) -> list[str]:
    if info.record is None or info.record.complete:
        return []
    images = info.record.options.get("images")
    total = "" if images is None else f" for a list of {images} images"
    return [
        f"INCOMPLETE: {info.records} records{total}; the program that writes it was interrupted or "
        f"still runs; {completion(info.record)}"
    ]


def _sizes(values: dict[str, Any]) -> str:
    (low, high), (left, right) = values["height"], values["width"]
    if values["sizes"] == 1:
        return f"size: {low}x{left} (height x width), all alike"
    return f"size: height {low} to {high}, width {left} to {right}, {values['sizes']} sizes"


def _labels(labels: Counter[int]) -> list[str]:
    """The range of labels, and a histogram if they are few."""
    if not labels:
        return ["labels: none"]
    missing = max(labels) + 1 - min(labels) - len(labels)
    counts = labels.values()
    head = (
        f"labels: {min(labels)} to {max(labels)}, {len(labels)} classes of {min(counts)} to "
        f"{max(counts)} records" + (f", {missing} labels in between unused" if missing else "")
    )
    if len(labels) > _MOST_LINES:
        return [head]
    longest = max(counts)
    rows = sorted(labels.items())
    return [head, *(f"  {k:5d} {n:8d} {'#' * max(1, n * _BAR // longest)}" for k, n in rows)]
