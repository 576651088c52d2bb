"""Draw the learning curve of a log. Caffe: tools/extra/plot_training_log.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from runtime.cli.console import beside
from runtime.logs.learning_curve import plot_learning_curve

NAME = "plot_log"
SUMMARY = "draw loss, accuracy and learning rate of a log as a PNG"
EXAMPLE = "verydeep plot_log train.log --out curve.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "log",
        metavar="LOG",
        help="a Caffe log or a JSON log; of several runs in it, the last is drawn",
    )
    parser.add_argument("--out", metavar="PNG", help="output file (default: LOG.png)")
    parser.add_argument("--title", default="", help="title of the picture")


def run(args: argparse.Namespace) -> int:
    out = args.out or f"{Path(args.log)}.png"
    path = plot_learning_curve(args.log, out, args.title)
    with beside(out):
        print(path)
    return 0
