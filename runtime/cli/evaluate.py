"""Errors of a net by the paper's test protocols. Paper: sections 3.2 and 4.1 to 4.3."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.text_lines import read_lines
from prototxt_gen.errors import DataError, UsageError
from runtime.cli.bundles import MODEL_HELP, take_evaluation_settings
from runtime.cli.data_sets import DATA_HELP
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.evaluate.cache import PosteriorCache
from runtime.evaluate.confusion import (
    Matrix,
    check_suffix,
    class_errors,
    worst_classes,
    write_confusion,
)
from runtime.evaluate.evaluation import Evaluator, Measured, Member
from runtime.evaluate.flips import choose_flip
from runtime.evaluate.image_source import class_names
from runtime.evaluate.protocol import (
    AFTER,
    BEFORE,
    DENSE,
    GRID,
    KINDS,
    EvaluationProtocol,
    parse_scales,
)
from runtime.logs.glog import setup_logging
from runtime.net.finite import sentence

NAME = "evaluate"
SUMMARY = "top-1 and top-5 error by the paper's protocols: dense, multi-crop or both, at any scales"
EXAMPLE = (
    "verydeep evaluate --model nets/D/train_val.prototxt --weights D.caffemodel "
    "--source ilsvrc12_val_lmdb --protocol dense --scales 256,384,512"
)
CACHE = Path("build/posteriors")
_WORST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--scales",
        metavar="Q,Q",
        help="test scales: short sides in pixels (default: that of the bundle)",
    )
    parser.add_argument(
        "--protocol",
        choices=KINDS,
        default=DENSE,
        help="the whole image, a grid of crops, or the average of both (default: %(default)s)",
    )
    parser.add_argument(
        "--grid", type=int, default=GRID, metavar="N", help="crops per side (default: %(default)s)"
    )
    add_evaluation_arguments(parser)
    add_device_arguments(parser)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `evaluate` and `fuse` share."""
    parser.add_argument(
        "--source",
        required=True,
        type=Path,
        metavar="DIR",
        help=f"an LMDB, or a data set, whose held-out images are used: {DATA_HELP}",
    )
    parser.add_argument(
        "--average-after",
        action="store_true",
        help="average the class map after the softmax instead of before it",
    )
    add_flip_argument(parser)
    add_mean_argument(parser)
    parser.add_argument("--images", type=int, metavar="N", help="use the first N images only")
    parser.add_argument(
        "--confusion",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="write the confusion matrix and the error of each class: .png or .csv; repeatable",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes for --confusion, one per line (default: those of the source)",
    )
    add_cache_arguments(parser, CACHE, "posteriors")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_model_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --model and --weights; a bundle as --model has weights of its own."""
    parser.add_argument(
        "--model",
        required=required,
        type=Path,
        metavar="FILE",
        help=f"train_val or deploy prototxt, {MODEL_HELP}",
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="the net's weights, in any format"
    )


def add_mean_argument(parser: argparse.ArgumentParser) -> None:
    """Add --mean-value."""
    parser.add_argument(
        "--mean-value", metavar="B,G,R", help="mean pixel, if the prototxt does not contain it"
    )


def add_cache_arguments(parser: argparse.ArgumentParser, folder: Path, content: str) -> None:
    """Add --cache, with `folder` as its default, and --no-cache."""
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache",
        type=Path,
        default=folder,
        metavar="DIR",
        help=f"folder of cached {content} (default: %(default)s)",
    )
    cache.add_argument("--no-cache", action="store_true", help=f"do not cache {content}")


def add_flip_argument(parser: argparse.ArgumentParser) -> None:
    """Add --flip and --no-flip."""
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored images (default: if training mirrored images)",
    )


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    bundle = take_evaluation_settings(args)
    member = member_of(args, args.model, args.weights, args.scales, args.protocol, args.grid)
    return print_measured(args, [member], bundle.labels if bundle is not None else ())


def member_of(
    args: argparse.Namespace, model: Path, weights: Path, scales: str, kind: str, grid: int = GRID
) -> Member:
    """Return a net with the protocol that its arguments and the shared flags describe."""
    average = AFTER if args.average_after else BEFORE
    protocol = EvaluationProtocol(parse_scales(scales), kind, average, grid)
    protocol = dataclasses.replace(protocol, flip=choose_flip(model, args.flip))
    return Member(model, weights, protocol)


def print_measured(
    args: argparse.Namespace, members: Sequence[Member], labels: Sequence[str] = ()
) -> int:
    """Evaluate, print the errors with everything they depend on, and write --confusion.

    `labels` are names of the classes for a source without names.
    """
    for path in args.confusion:
        check_suffix(path)
    names = None if args.labels is None else _read_names(args.labels)
    mean = None if args.mean_value is None else mean_values(args.mean_value)
    cache = None if args.no_cache else PosteriorCache(args.cache)
    evaluator = Evaluator(args.source, open_backend(args), cache, args.images, mean)
    measured = evaluator.measure(members, confusion=bool(args.confusion))
    values, lines = measured.to_json(), measured.lines()
    matrix = measured.confusion
    if matrix is not None:
        names = _names_for(args, names, len(matrix), labels)
        values |= {"classes": _class_values(matrix, names), "files": list(map(str, args.confusion))}
        lines += _class_lines(matrix, names)
        lines += [f"confusion matrix: {path}" for path in args.confusion]
    print(json.dumps(values, indent=2) if args.json else "\n".join(lines))
    if matrix is not None and names is not None:
        for path in args.confusion:
            write_confusion(matrix, names, path)
    return _status(args, measured)


def _status(args: argparse.Namespace, measured: Measured) -> int:
    if not measured.not_finite:
        return 0
    wrong = f"the scores of {measured.not_finite} of {measured.images} images"
    print(f"verydeep {args.verb}: {sentence([wrong])}", file=sys.stderr)
    return 1


def _read_names(path: Path) -> list[str]:
    return [name for _, name in read_lines(path, "the labels", keep_empty=True)]


def _names_for(
    args: argparse.Namespace, names: Sequence[str] | None, classes: int, labels: Sequence[str]
) -> list[str]:
    """Return the names of --labels, of the source, of the bundle, or the numbers of the classes.

    Raises:
        DataError: --labels has another number of names.
    """
    if names is not None and len(names) != classes:
        raise DataError(
            f"{args.labels}: {len(names)} labels for a net of {classes} classes; expected a line "
            "for each class; use the list that belongs to these weights"
        )
    names = names or class_names(args.source) or labels
    return list(names) if names and len(names) == classes else list(map(str, range(classes)))


def _class_values(matrix: Matrix, names: Sequence[str]) -> list[dict[str, Any]]:
    errors, images = class_errors(matrix), matrix.sum(axis=1)
    return [
        {
            "label": label,
            "name": name,
            "images": int(images[label]),
            "top1_error": float(errors[label]) if images[label] else None,
        }
        for label, name in enumerate(names)
    ]


def _class_lines(matrix: Matrix, names: Sequence[str]) -> list[str]:
    errors, images = class_errors(matrix), matrix.sum(axis=1)
    worst = [k for k in worst_classes(matrix, _WORST) if images[k]]
    return [
        "classes with the largest top-1 error:",
        *(f"  {names[k]}: {100 * errors[k]:.2f} % of {images[k]} images" for k in worst),
    ]


def mean_values(words: str) -> tuple[float, ...]:
    """Parse `B,G,R`.

    Raises:
        UsageError: the text is not a list of numbers.
    """
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError:
        raise UsageError(
            f"--mean-value: expected numbers from 0 to 255 separated by commas, got {words!r}; "
            "write B,G,R"
        ) from None
