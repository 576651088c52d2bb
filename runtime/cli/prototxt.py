"""Write the prototxts of a net: to train, to deploy, to apply densely, and its solver."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from prototxt_gen.generate import write_all
from prototxt_gen.sidecar import STORED, Scale
from prototxt_gen.spec import (
    INITIALISATIONS,
    LR_POLICIES,
    SOLVER_MODES,
    NetSpecification,
    builtin_spec,
    net_names,
    paper_test_scale,
    with_values,
)
from prototxt_gen.spec_toml import load_spec, parse_width, to_toml
from prototxt_gen.vgg import CROP

NAME = "prototxt"
SUMMARY = "write a net's train_val, deploy, dense and solver prototxts"
EXAMPLE = "verydeep prototxt --net D --out nets/D"


class Override(NamedTuple):
    """A flag that replaces one value of the specification, by its dotted name there."""

    flag: str
    value: str
    read: Callable[[str], Any]
    help: str
    choices: tuple[str, ...] | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    net = parser.add_mutually_exclusive_group(required=True)
    net.add_argument("--net", choices=net_names(), help="a built-in net")
    net.add_argument(
        "--spec", metavar="FILE", help="a net of your own, in TOML: docs/reference/spec.md"
    )
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument("--out", metavar="DIR", help="write the files into this folder")
    result.add_argument(
        "--print-spec", action="store_true", help="print the spec and write nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the paths written as JSON")
    group = parser.add_argument_group("values that replace those of the spec")
    for override in OVERRIDES:
        group.add_argument(
            override.flag,
            type=override.read,
            choices=override.choices,
            help=override.help,
            default=argparse.SUPPRESS,
            metavar=None if override.choices else _dest(override).upper(),
        )


def run(args: argparse.Namespace) -> int:
    spec = specification(vars(args))
    if args.print_spec:
        print(to_toml(spec), end="")
        return 0
    paths = [path.as_posix() for path in write_all(spec, args.out)]
    print(json.dumps({"files": paths}) if args.json else "\n".join(paths))
    return 0


def specification(args: Mapping[str, Any]) -> NetSpecification:
    """The spec that parsed arguments describe.

    Raises:
        ProtoError: the spec file, or a value in it or in a flag, is at fault.
    """
    # A built-in net's scale goes with its crop, as 256 goes with 224.
    crop = args.get("crop", CROP)
    spec = load_spec(args["spec"]) if args.get("spec") else builtin_spec(args["net"], crop)
    values = {item.value: args[_dest(item)] for item in OVERRIDES if _dest(item) in args}
    if "scale" in args and "val_scale" not in args:
        values[_TEST_SCALE] = paper_test_scale(args["scale"])
    # One initialisation, and one mean, takes the place of the other.
    if "init" in args:
        values.setdefault("init.weights", None)
    if "mean_value" in args:
        values.setdefault("data.mean_file", None)
    elif "mean_file" in args:
        values["data.mean_value"] = ()
    return with_values(spec, values)


def read_scale(text: str) -> Scale:
    """A short side such as "256", a range such as "256-512", or "stored"."""
    if text == STORED:
        return None
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash else int(low)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a short side such as 256, a range such as 256-512, or {STORED}, got {text!r}"
        ) from None


def read_mean(text: str) -> tuple[float, ...]:
    """Numbers with commas between them, in B, G, R."""
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected numbers in B,G,R such as 103.939,116.779,123.68, got {text!r}"
        ) from None


def read_width(text: str) -> Fraction:
    """A multiplier such as "1/8"."""
    try:
        return parse_width(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number such as 1/8 or 0.125, got {text!r}"
        ) from None


def _dest(override: Override) -> str:
    return override.flag.removeprefix("--").replace("-", "_")


_TRAIN, _TEST = "data.train.options", "data.test.options"
_TEST_SCALE = f"{_TEST}.short_side"
OVERRIDES = (
    Override("--name", "name", str, "the net's name, with which its snapshots begin"),
    Override("--width", "width", read_width, "what every width is multiplied by, such as 1/8"),
    Override("--crop", "crop", int, "side of the net's input in pixels"),
    Override("--classes", "classes", int, "number of classes"),
    Override("--dropout", "dropout", float, "share of activations dropped; 0 for no dropout"),
    Override("--init", "init.method", str, "how weights are drawn", INITIALISATIONS),
    Override("--init-weights", "init.weights", str, "net A's .caffemodel, for from-net-a"),
    Override("--train-source", "data.train.source", str, "LMDB of training images"),
    Override("--val-source", "data.test.source", str, "LMDB of validation images"),
    Override("--batch", "data.train.batch_size", int, "images of a training iteration, in all"),
    Override("--val-batch", "data.test.batch_size", int, "images of a test iteration"),
    Override("--scale", f"{_TRAIN}.short_side", read_scale, "short side: S, Smin-Smax or stored"),
    Override("--val-scale", _TEST_SCALE, read_scale, "the same in tests; the paper's Q if absent"),
    Override("--colour-shift", f"{_TRAIN}.colour_shift", float, "its standard deviation, or 0"),
    Override("--pca", f"{_TRAIN}.pca", str, "the file of colour components for the shift"),
    Override("--mean-value", "data.mean_value", read_mean, "mean pixel B,G,R"),
    Override("--mean-file", "data.mean_file", str, "mean image, instead of a mean pixel"),
    Override("--base-lr", "solver.base_lr", float, "first learning rate"),
    Override("--lr-policy", "solver.lr_policy", str, "how the rate drops", LR_POLICIES),
    Override("--max-iter", "solver.max_iter", int, "iterations"),
    Override("--iter-size", "solver.iter_size", int, "passes that the batch is split into"),
    Override("--weight-decay", "solver.weight_decay", float, "multiplier of the L2 penalty"),
    Override("--test-iter", "solver.test_iter", int, "batches of a test"),
    Override("--test-interval", "solver.test_interval", int, "iterations between tests"),
    Override("--display", "solver.display", int, "iterations between lines of the log"),
    Override("--snapshot", "solver.snapshot", int, "iterations between snapshots"),
    Override("--seed", "solver.random_seed", int, "seed of all that is drawn"),
    Override("--solver-mode", "solver.solver_mode", str, "the default device", SOLVER_MODES),
    Override("--patience", "schedule.patience", int, "tests without gain before the rate drops"),
    Override("--shards", "shards", int, "parts in which a batch's gradient is computed"),
)
