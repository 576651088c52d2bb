"""Errors of several nets with averaged posteriors. Paper: section 4.4."""

from __future__ import annotations

import argparse
from pathlib import Path

from prototxt_gen.errors import UsageError
from runtime.cli.devices import add_device_arguments
from runtime.cli.evaluate import add_evaluation_arguments, member_of, print_measured
from runtime.evaluate.evaluation import Member
from runtime.evaluate.protocol import DENSE, KINDS
from runtime.logs.glog import setup_logging

NAME = "fuse"
SUMMARY = "top-1 and top-5 error of several nets with averaged posteriors"
EXAMPLE = (
    "verydeep fuse --source ilsvrc12_val_lmdb "
    "--member nets/D/train_val.prototxt D.caffemodel 256,384,512 "
    "--member nets/E/train_val.prototxt E.caffemodel 256,384,512 both"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--member",
        action="append",
        nargs="+",
        required=True,
        metavar="VALUE",
        help=f"a net: MODEL WEIGHTS SCALES [PROTOCOL], PROTOCOL one of {', '.join(KINDS)} "
        f"(default: {DENSE}); repeat for each net",
    )
    add_evaluation_arguments(parser)
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    return print_measured(args, [_member(args, words) for words in args.member])


def _member(args: argparse.Namespace, words: list[str]) -> Member:
    if len(words) not in (3, 4):
        raise UsageError(
            f"--member: expected MODEL WEIGHTS SCALES [PROTOCOL], got {len(words)} value(s): "
            f"{' '.join(words)}; write for example D/train_val.prototxt D.caffemodel 256,384,512"
        )
    kind = words[3] if len(words) == 4 else DENSE
    return member_of(args, Path(words[0]), Path(words[1]), words[2], kind)
