"""Trains a net of the paper and the runs that it starts from. Paper: section 3.1."""

from __future__ import annotations

import argparse
from pathlib import Path

from prototxt_gen.vgg import NETS
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.job.prepare import DEMO
from runtime.logs.glog import setup_logging
from runtime.paper.driver import RecipeOptions, run_recipe
from runtime.paper.recipe import SCALES, parse_scale, scale_name, steps_to
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting

NAME = "recipe"
SUMMARY = "train a net of the paper and all runs that it starts from; skip finished runs"
EXAMPLE = "verydeep recipe --net D --scales 256-512 --data /data/ilsvrc12 --out runs --gpu 0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--net", required=True, choices=list(NETS), help="net of the paper")
    scales = ", ".join(map(scale_name, SCALES))
    parser.add_argument(
        "--scales", required=True, metavar="S", help=f"training scale of the paper: {scales}"
    )
    parser.add_argument("--plan", action="store_true", help="print the runs without training")
    add_recipe_arguments(parser)
    parser.add_argument(
        "--data",
        default=DEMO,
        metavar="DIR",
        help="ILSVRC-2012, or 'demo' for the embedded data set (default)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/paper"),
        metavar="DIR",
        help="run folder (default: %(default)s)",
    )


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verbs that train runs."""
    parser.add_argument(
        "--max-iter", type=int, metavar="N", help="limit every run to N iterations, for a trial"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the embedded data set and of the trainings (default: %(default)s)",
    )
    add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    steps = steps_to(args.net, parse_scale(args.scales))
    if args.plan:
        print("\n".join(step.describe() for step in steps))
        return 0
    setup_logging(terse=True)
    options = RecipeOptions(args.threads, args.max_iter)
    setting = Setting(args.data, args.seed)
    runs = run_recipe(RunFolder(args.out), setting, steps, open_backend(args), options)
    print("\n".join(done.describe() for done in runs))
    return 0
