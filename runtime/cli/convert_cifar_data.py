"""`verydeep convert_cifar_data`. Caffe: examples/cifar10/convert_cifar_data.cpp."""

from __future__ import annotations

import argparse
import json

from data_prep.array_files import convert_cifar
from runtime.cli.convert_mnist_data import expect_lmdb
from runtime.logs.glog import setup_logging

NAME = "convert_cifar_data"
SUMMARY = "write the batches of CIFAR-10's binary version into two LMDBs"
EXAMPLE = "verydeep convert_cifar_data data/cifar10 examples/cifar10 lmdb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "source", metavar="INPUT_FOLDER", help="the folder of data_batch_1.bin and the others"
    )
    parser.add_argument(
        "target",
        metavar="OUTPUT_FOLDER",
        help="where cifar10_train_lmdb and cifar10_test_lmdb are created",
    )
    parser.add_argument("db_type", nargs="?", default="lmdb", help="lmdb (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the databases."""
    setup_logging()
    expect_lmdb(NAME, args.db_type)
    counts = convert_cifar(args.source, args.target)
    lines = [f"{path}: {count} records" for path, count in counts.items()]
    print(json.dumps(counts) if args.json else "\n".join(lines))
    return 0
