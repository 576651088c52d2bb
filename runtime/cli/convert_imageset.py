"""`verydeep convert_imageset`: convert images and labels to an LMDB, with Caffe's flags."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from data_prep.convert_imageset import ConvertOptions, convert, read_list
from data_prep.data_set import Entry, class_names
from data_prep.open_data_set import open_data_set
from data_prep.progress import show_progress
from data_prep.read_plan import FATAL, SKIP
from prototxt_gen.errors import DataError, UnsupportedError, UsageError
from prototxt_gen.files import atomic_write_text
from runtime.cli.data_sets import add_split_arguments, split_of
from runtime.cli.devices import add_list_arguments
from runtime.logs.glog import setup_logging

NAME = "convert_imageset"
SUMMARY = "write a list of images and labels, or a data set, into an LMDB"
EXAMPLE = (
    "verydeep convert_imageset --encoded --short_side 512 --shrink_only "
    "ilsvrc12/train/ train.txt ilsvrc12_train_lmdb"
)

TRAIN, VAL, ALL = "train", "val", "all"
SPLITS = (TRAIN, VAL, ALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root_folder",
        metavar="ROOTFOLDER/",
        help="folder that the names in LISTFILE are relative to; without LISTFILE, a data set such "
        "as a folder with a folder for each class",
    )
    parser.add_argument("list_file", metavar="LISTFILE", nargs="?", help="lines of `name label`")
    parser.add_argument("db_name", metavar="DB_NAME", help="folder of the new database")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default=ALL,
        help="without LISTFILE: the images to convert (default: %(default)s)",
    )
    parser.add_argument(
        "--labels", metavar="FILE", help="without LISTFILE: write the names of the classes here"
    )
    add_split_arguments(parser)
    _switch(parser, "gray", "store one channel")
    _switch(parser, "shuffle", "shuffle the list once, with --seed")
    _switch(parser, "check_size", "all images must have one size")
    _switch(parser, "encoded", "store encoded images instead of raw pixels")
    _switch(
        parser, "resume", "continue an interrupted database; needs the options of the first start"
    )
    _switch(parser, "shrink_only", "with --short_side, keep the size of smaller images")
    parser.add_argument(
        "--encode_type", default="", help="jpg, png, bmp, ppm, tiff or webp; implies --encoded"
    )
    parser.add_argument("--backend", default="lmdb", help="type of the database: only lmdb")
    parser.add_argument("--resize_width", type=int, default=0, help="warp to this width")
    parser.add_argument("--resize_height", type=int, default=0, help="warp to this height")
    parser.add_argument(
        "--short_side", type=int, default=0, help="rescale isotropically to this short side"
    )
    parser.add_argument(
        "--quality", type=int, default=95, help="JPEG quality, 1 to 100 (default: 95)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of --shuffle (default: 0)")
    parser.add_argument(
        "--jobs", type=int, default=None, help="number of threads (default: one for each core)"
    )
    parser.add_argument(
        "--on_error",
        choices=(FATAL, SKIP),
        default=FATAL,
        help="stop at an image that cannot be used, or skip it",
    )
    add_list_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _switch(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """A boolean flag in the forms of gflags: --name, --name=true, --name=false, --noname."""
    parser.add_argument(f"--{name}", action="store_true", help=text)
    for words, value in (((f"--{name}=true", f"--{name}=1"), True),
                         ((f"--{name}=false", f"--{name}=0", f"--no{name}"), False)):  # fmt: skip
        parser.add_argument(
            *words, dest=name, action="store_const", const=value, help=argparse.SUPPRESS
        )


def run(args: argparse.Namespace) -> int:
    setup_logging()
    if args.backend != "lmdb":
        raise UnsupportedError(
            f"convert_imageset: backend {args.backend!r}; expected lmdb; Caffe reads LMDB as well"
        )
    log = logging.getLogger("verydeep.data")
    if args.encode_type and not args.encoded:
        log.info("encode_type specified, assuming encoded=true.")
    options = ConvertOptions(
        gray=args.gray,
        shuffle=args.shuffle,
        seed=args.seed,
        resize_height=args.resize_height,
        resize_width=args.resize_width,
        short_side=args.short_side,
        shrink_only=args.shrink_only,
        check_size=args.check_size,
        encoded=args.encoded,
        encode_type=args.encode_type,
        quality=args.quality,
        jobs=args.jobs,
        resume=args.resume,
        on_error=args.on_error,
        confine=args.confine_lists,
    )
    root, entries = _entries(args)
    log.info("A total of %d images.", len(entries))
    with show_progress("converting") as progress:
        result = convert(root, entries, args.db_name, options, progress)
    log.info("Processed %d files.", len(entries) - result.resumed_at)
    if args.json:
        json.dump(
            {
                "database": args.db_name,
                "records": result.records,
                "resumed_at": result.resumed_at,
                "skipped": result.skipped,
            },
            sys.stdout,
            indent=2,
        )
        print()
    else:
        print(f"{args.db_name}: {result.records} records, {len(result.skipped)} images skipped")
    return 0


def _entries(args: argparse.Namespace) -> tuple[str | Path, list[Entry]]:
    """The root and the images: those of LISTFILE, or of a split of the data set."""
    if args.list_file is not None:
        if args.split != ALL or args.labels is not None:
            raise UsageError(
                "--split, --labels: they apply to a data set; expected no LISTFILE with them, got "
                f"{args.list_file}; omit the flags"
            )
        # A shell's process substitution is a pipe.
        return args.root_folder, read_list(args.list_file, pipe=True)
    data = open_data_set(args.root_folder, split_of(args))
    lists = {TRAIN: data.train_list, VAL: data.val_list}
    chosen = (TRAIN, VAL) if args.split == ALL else (args.split,)
    if args.labels is not None:
        names = "".join(f"{name}\n" for name in class_names(data))
        atomic_write_text(args.labels, names, DataError)
    return data.root, [entry for name in chosen for entry in lists[name]()]
