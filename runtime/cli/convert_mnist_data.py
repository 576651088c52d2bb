"""`verydeep convert_mnist_data`. Caffe: examples/mnist/convert_mnist_data.cpp."""

from __future__ import annotations

import argparse
import json

from data_prep.array_files import convert_mnist
from prototxt_gen.errors import UnsupportedError
from runtime.logs.glog import setup_logging

NAME = "convert_mnist_data"
SUMMARY = "write the images and labels of MNIST's files into an LMDB"
EXAMPLE = (
    "verydeep convert_mnist_data train-images-idx3-ubyte train-labels-idx1-ubyte mnist_train_lmdb"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("images", metavar="IMAGES", help="an uncompressed IDX file of images")
    parser.add_argument("labels", metavar="LABELS", help="the IDX file of their labels")
    parser.add_argument("database", metavar="DB_NAME", help="the folder to create")
    parser.add_argument("--backend", default="lmdb", help="lmdb (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the database."""
    setup_logging()
    expect_lmdb(NAME, args.backend)
    records = convert_mnist(args.images, args.labels, args.database)
    result = {"database": args.database, "records": records}
    print(json.dumps(result) if args.json else f"{args.database}: {records} records")
    return 0


def expect_lmdb(verb: str, backend: str) -> None:
    """Refuse other kinds of databases.

    Raises:
        UnsupportedError: the backend is not lmdb.
    """
    if backend != "lmdb":
        raise UnsupportedError(
            f"{verb}: backend {backend!r}; expected lmdb; set the script's backend to lmdb"
        )
