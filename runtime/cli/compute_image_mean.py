"""`verydeep compute_image_mean`: mean image, mean pixel and colour components of a database."""

from __future__ import annotations

import argparse
import json
import sys

from data_prep.colour import write_pca
from data_prep.datum import COLOR, NATIVE
from data_prep.image_mean import ImageMean, MeanOptions, compute_image_mean
from data_prep.lmdb_io import Reader
from data_prep.mean_file import write_mean
from data_prep.progress import show_progress
from prototxt_gen.errors import DataError, UnsupportedError
from runtime.cli.console import beside
from runtime.logs.glog import setup_logging

NAME = "compute_image_mean"
SUMMARY = "compute the mean image, the mean pixel and the colour components of an LMDB"
EXAMPLE = "verydeep compute_image_mean --pca pca.json ilsvrc12_train_lmdb mean.binaryproto"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input_db", metavar="INPUT_DB", help="an LMDB of Datums")
    parser.add_argument(
        "output_file", metavar="OUTPUT_FILE", nargs="?", help="the mean image (.binaryproto)"
    )
    parser.add_argument("--pca", metavar="FILE", help="write the colour components as JSON")
    parser.add_argument("--backend", default="lmdb", help="type of the database: only lmdb")
    parser.add_argument(
        "--short_side", type=int, default=0, help="rescale isotropically to this short side first"
    )
    parser.add_argument(
        "--crop", type=int, default=0, help="use only the central square of this side"
    )
    parser.add_argument("--force_color", action="store_true", help="decode to three channels")
    parser.add_argument(
        "--jobs", type=int, default=None, help="number of threads (default: one for each core)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging()
    if args.backend != "lmdb":
        raise UnsupportedError(
            f"compute_image_mean: backend {args.backend!r}; expected lmdb; "
            "make the database again with convert_imageset"
        )
    options = MeanOptions(
        args.short_side, args.crop, COLOR if args.force_color else NATIVE, args.jobs
    )
    with Reader(args.input_db) as reader, show_progress("averaging") as progress:
        result = compute_image_mean(reader, options, progress)
    if args.output_file is not None:
        if result.mean is None:
            raise DataError(
                f"{args.input_db}: the images differ in size; expected one size for a mean image; "
                "use --short_side and --crop, or leave OUTPUT_FILE out for the mean pixel alone"
            )
        write_mean(args.output_file, result.mean)
    if args.pca is not None:
        write_pca(args.pca, result.pca(), mean_bgr=result.pixel.tolist(), pixels=result.pixels)
    with beside(args.output_file or ""):
        _print(result, args.json)
    return 0


def _print(result: ImageMean, as_json: bool) -> None:
    if as_json:
        shape = None if result.mean is None else list(result.mean.shape)
        content = {
            "records": result.records,
            "pixels": result.pixels,
            "mean_value": result.pixel.tolist(),
            "mean_image_shape": shape,
        }
        json.dump(content, sys.stdout, indent=2)
        print()
        return
    print(f"Number of channels: {len(result.pixel)}")
    for channel, value in enumerate(result.pixel):
        print(f"mean_value channel [{channel}]: {value:g}")
