"""`verydeep data`: looks into databases."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

from data_prep.inspect_db import DatabaseInfo, inspect
from data_prep.lmdb_io import Reader
from data_prep.progress import show_progress
from runtime.logs.glog import setup_logging

NAME = "data"
SUMMARY = "show what is in an LMDB: records, sizes, encodings, labels"
EXAMPLE = "verydeep data info ilsvrc12_train_lmdb"

_BAR = 40
_MOST_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help=SUMMARY, description=SUMMARY)
    info.add_argument("database", metavar="DB", help="an LMDB of Datums")
    info.add_argument("--decode", action="store_true", help="decode every image, to find bad ones")
    info.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Exit status 1 where a record cannot be used."""
    setup_logging()
    with Reader(args.database) as reader, show_progress("reading", "records") as progress:
        info = inspect(reader, args.decode, progress)
    print(json.dumps(info.as_dict(), indent=2) if args.json else _text(args.database, info))
    return 1 if info.problems else 0


def _text(database: str, info: DatabaseInfo) -> str:
    found = info.as_dict()
    mean_size = info.value_bytes / info.records
    lines = [
        f"{database}: {info.records} records, {info.value_bytes:,} bytes, {mean_size:,.0f} each",
        "encoding: " + ", ".join(f"{count} {name}" for name, count in info.encodings.items()),
        f"channels: {', '.join(map(str, found['channels']))}",
        _sizes(found),
        f"keys: {', '.join(info.first_keys)} ...",
        *_labels(info.labels),
    ]
    if info.problems:
        lines.append(f"{len(info.problems)} records cannot be used:")
        lines += [f"  {problem}" for problem in info.problems[:_MOST_LINES]]
    return "\n".join(lines)


def _sizes(found: dict[str, Any]) -> str:
    (low, high), (left, right) = found["height"], found["width"]
    if found["sizes"] == 1:
        return f"size: {low}x{left} (height x width), all alike"
    return f"size: height {low} to {high}, width {left} to {right}, {found['sizes']} sizes"


def _labels(labels: Counter[int]) -> list[str]:
    """The range of labels, and a histogram where there are few."""
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
