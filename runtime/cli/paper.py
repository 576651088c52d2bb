"""The paper's tables with published and measured errors. Paper: section 4."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prototxt_gen.errors import UsageError
from runtime.cli.devices import open_backend
from runtime.cli.recipe import add_recipe_arguments
from runtime.logs.glog import setup_logging
from runtime.paper.classification.experiment import reproduce, write_table
from runtime.paper.classification.published import TABLES
from runtime.paper.classification.report import table_json, text_table
from runtime.paper.classification.tables import TableMaker
from runtime.paper.driver import RecipeOptions
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting, read_setting

NAME = "paper"
SUMMARY = "Tables 3 to 7 of the paper: published and measured errors"
EXAMPLE = "verydeep paper --table 4 --run runs --json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--run",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="measure --table on the runs of a folder",
    )
    source.add_argument(
        "--data",
        metavar="DIR",
        help="train and measure all rows on ILSVRC-2012, or in miniature on 'demo'",
    )
    parser.add_argument("--table", type=int, choices=TABLES, help="the number of the table")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder of --data (default: build/paper)"
    )
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    if args.folder is not None and args.table is None:
        raise UsageError(
            f"--run {args.folder}: no table; expected --table with one of "
            f"{', '.join(map(str, TABLES))}, got none; add it"
        )
    setup_logging(terse=True)
    return _measure_table(args) if args.folder is not None else _reproduce(args)


def _measure_table(args: argparse.Namespace) -> int:
    folder = RunFolder(args.folder)
    setting = read_setting(args.folder)
    results = TableMaker(folder, setting, open_backend(args)).table(args.table)
    files = write_table(folder.tables, args.table, results)
    if args.json:
        print(json.dumps(table_json(args.table, results), indent=2))
        return 0
    print(text_table(args.table, results, setting.words()))
    print("\n" + "\n".join(map(str, files)))
    return 0


def _reproduce(args: argparse.Namespace) -> int:
    folder = RunFolder(args.out or Path("build/paper"))
    tables = TABLES if args.table is None else (args.table,)
    options = RecipeOptions(args.threads, args.max_iter)
    report = reproduce(folder, Setting(args.data, args.seed), open_backend(args), options, tables)
    if args.json:
        written = [json.loads((folder.tables / f"table{n}.json").read_text()) for n in tables]
        print(json.dumps({"report": str(report), "tables": written}, indent=2))
    else:
        print(report)
    return 0
