"""Errors of a net by the paper's test protocols. Paper: sections 3.2 and 4.1 to 4.3."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from prototxt_gen.errors import ProtoError
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.evaluate.cache import PosteriorCache
from runtime.evaluate.evaluation import Evaluator, Member
from runtime.evaluate.flips import choose_flip
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, type=Path, metavar="FILE", help="train_val or deploy prototxt"
    )
    parser.add_argument(
        "--weights", required=True, type=Path, metavar="FILE", help="the net's weights, of any form"
    )
    parser.add_argument(
        "--scales", required=True, metavar="Q,Q", help="test scales: short sides in pixels"
    )
    parser.add_argument(
        "--protocol",
        choices=KINDS,
        default=DENSE,
        help="whole image, grid of crops, or the average of both (default: %(default)s)",
    )
    parser.add_argument(
        "--grid", type=int, default=GRID, metavar="N", help="crops a side (default: %(default)s)"
    )
    add_evaluation_arguments(parser)
    add_device_arguments(parser)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that fusion has too."""
    parser.add_argument(
        "--source",
        required=True,
        type=Path,
        metavar="DIR",
        help="an LMDB, or a folder in ILSVRC-2012's layout, whose validation images are taken",
    )
    parser.add_argument(
        "--average-after",
        action="store_true",
        help="average the class map after the soft-max, not before",
    )
    add_flip_argument(parser)
    parser.add_argument(
        "--mean-value", metavar="B,G,R", help="mean pixel, if the prototxt does not contain it"
    )
    parser.add_argument("--images", type=int, metavar="N", help="the first N images alone")
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache", type=Path, default=CACHE, metavar="DIR", help="posteriors go here (%(default)s)"
    )
    cache.add_argument("--no-cache", action="store_true", help="keep no posteriors")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_flip_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flip",
        action=argparse.BooleanOptionalAction,
        help="average with the mirrored images (default: if training mirrored images)",
    )


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    member = member_of(args, args.model, args.weights, args.scales, args.protocol, args.grid)
    return print_measured(args, [member])


def member_of(
    args: argparse.Namespace, model: Path, weights: Path, scales: str, kind: str, grid: int = GRID
) -> Member:
    """Return a net with the protocol that its arguments and the shared flags describe."""
    average = AFTER if args.average_after else BEFORE
    protocol = EvaluationProtocol(parse_scales(scales), kind, average, grid)
    protocol = dataclasses.replace(protocol, flip=choose_flip(model, args.flip))
    return Member(model, weights, protocol)


def print_measured(args: argparse.Namespace, members: Sequence[Member]) -> int:
    """Evaluate, and print errors with all they depend on."""
    mean = None if args.mean_value is None else mean_values(args.mean_value)
    cache = None if args.no_cache else PosteriorCache(args.cache)
    evaluator = Evaluator(args.source, open_backend(args), cache, args.images, mean)
    measured = evaluator.measure(members)
    if args.json:
        print(json.dumps(measured.to_json(), indent=2))
    else:
        print("\n".join(measured.lines()))
    if measured.not_finite:
        wrong = f"the scores of {measured.not_finite} of {measured.images} images"
        print(f"verydeep {args.verb}: {sentence([wrong])}", file=sys.stderr)
        return 1
    return 0


def mean_values(words: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError:
        raise ProtoError(
            f"--mean-value: expected numbers in 0 to 255 with commas between them, got {words!r}; "
            "write B,G,R"
        ) from None
