"""Convert a training log to two CSV files. Caffe: tools/extra/parse_log.py."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

from prototxt_gen.errors import DataError, UsageError
from prototxt_gen.files import atomic_write_text
from runtime.logs.reader import Row, read_log

NAME = "parse_log"
SUMMARY = "convert a Caffe log or a JSON log to LOG.train and LOG.test, in CSV"
EXAMPLE = "verydeep parse_log train.log curves/"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "logfile_path",
        metavar="LOG",
        help="a Caffe log or a JSON log; of several runs in it, the last is read",
    )
    parser.add_argument("output_dir", metavar="DIR", help="folder for the two files")
    parser.add_argument(
        "--delimiter", default=",", help="delimiter of the columns (default: %(default)r)"
    )
    parser.add_argument("--verbose", action="store_true", help="print the paths written")


def run(args: argparse.Namespace) -> int:
    if len(args.delimiter) != 1:
        raise UsageError(
            f"--delimiter: expected one character, got {args.delimiter!r}; a tab is $'\\t' in bash"
        )
    table = read_log(args.logfile_path)
    stem = Path(args.output_dir) / Path(args.logfile_path).name
    for ending, rows in ((".train", table.train), (".test", table.test)):
        path = stem.with_name(stem.name + ending)
        atomic_write_text(path, csv_text(rows, args.delimiter), DataError)
        if args.verbose:
            print(f"Wrote {path}")
    return 0


def csv_text(rows: list[Row], delimiter: str) -> str:
    """The rows under a line of column names: NumIters, Seconds, LearningRate, then the outputs."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, delimiter=delimiter, lineterminator="\n")
    if names:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
