"""Write the report of a training run as one HTML page and as Markdown."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from data_prep.text_lines import read_lines
from prototxt_gen import text
from prototxt_gen.errors import UsageError
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.job.report import write_report
from runtime.job.report_facts import collect
from runtime.logs.glog import setup_logging

NAME = "report"
SUMMARY = "write a page about a training run: curve, errors, mistakes, filters, times, settings"
EXAMPLE = "verydeep report nets/D/solver.prototxt --labels synset_words.txt --out report.html"

_SUFFIXES = (".html", ".htm")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "solver", type=Path, metavar="SOLVER", help="the solver prototxt of the run"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="the weights to test (default: those of the newest snapshot)",
    )
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="the log (default: PREFIX.log.jsonl)"
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one per line")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; the Markdown is next to it (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    if args.out.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"--out {args.out}: expected a name that ends in .html; rename it")
    names = [] if args.labels is None else _names(args.labels)
    param = text.read_solver(args.solver)
    facts = collect(args.solver, open_backend(args, param), args.weights, args.log)
    files = write_report(facts, names, args.out)
    if args.json:
        values = {"top1_error": facts.evaluation.error(1), "images": len(facts.evaluation.labels)}
        print(json.dumps({**values, "files": [str(path) for path in files]}))
    else:
        for path in files[:2]:
            print(path)
    return 0


def _names(path: str) -> list[str]:
    return [name for _, name in read_lines(path, "the labels", keep_empty=True)]
