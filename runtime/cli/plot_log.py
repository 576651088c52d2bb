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
    parser.add_argument("log", metavar="LOG", help="Caffe's log, or ours in JSON lines")
    parser.add_argument("--out", metavar="PNG", help="the picture (default: LOG.png)")
    parser.add_argument("--title", default="", help="what stands above it")


def run(args: argparse.Namespace) -> int:
    out = args.out or f"{Path(args.log)}.png"
    path = plot_learning_curve(args.log, out, args.title)
    with beside(out):
        print(path)
    return 0
