"""Flags of the verbs that read a data set of images."""

from __future__ import annotations

import argparse

from data_prep.data_set import VAL_FRACTION, Split
from prototxt_gen.errors import UsageError
from runtime.cli.usage import flag_group

DATA_HELP = (
    "a folder with a folder of images for each class, or with such folders in train and val; a CSV "
    "file; annotations of COCO; PASCAL VOC; or ILSVRC-2012's layout"
)


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --val-fraction and --split-seed."""
    group = flag_group(parser, "data set")
    group.add_argument(
        "--val-fraction",
        type=float,
        default=VAL_FRACTION,
        metavar="F",
        help="held-out part of each class, if the data set has no held-out images "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--split-seed",
        type=int,
        default=0,
        metavar="N",
        help="seed by which they are chosen (default: %(default)s)",
    )


def split_of(args: argparse.Namespace) -> Split:
    """The values of the flags of `add_split_arguments`.

    Raises:
        UsageError: the fraction is not between 0 and 1, or the seed is negative.
    """
    if not 0 < args.val_fraction < 1:
        raise UsageError(
            f"--val-fraction: expected a number between 0 and 1, got {args.val_fraction:g}"
        )
    if not 0 <= args.split_seed < 1 << 63:
        raise UsageError(f"--split-seed: expected a number from 0, got {args.split_seed}")
    return Split(args.val_fraction, args.split_seed)
