"""Features of images, and linear SVMs on them for other data sets. Paper: appendix B."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from data_prep.voc import ACTION, MAIN
from prototxt_gen.errors import UsageError
from runtime.cli.bundles import take_evaluation_settings
from runtime.cli.data_sets import DATA_HELP
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.cli.evaluate import (
    add_cache_arguments,
    add_flip_argument,
    add_mean_argument,
    add_model_arguments,
    mean_values,
)
from runtime.cli.features_apply import add_apply_arguments, apply
from runtime.evaluate.flips import choose_flip
from runtime.evaluate.protocol import parse_scales
from runtime.logs.glog import setup_logging
from runtime.paper.features.classification import Outcome, solve
from runtime.paper.features.demo import DemoOptions, run_demo
from runtime.paper.features.extraction import DescriptorCache, Extractor
from runtime.paper.features.feature_file import check_feature_path, read_features, write_features
from runtime.paper.features.images import LAYOUTS, SPLITS, open_images
from runtime.paper.features.protocol import AGGREGATES, AVERAGE, FeatureProtocol
from runtime.paper.features.report import outcome_json, outcome_lines
from runtime.paper.features.saved_svm import SavedSvm, check_svm_path, write_svm
from runtime.paper.features.svm import GRID
from runtime.paper.features.tasks import ALL_TASKS, RANDOM_SPLITS, TaskOptions, open_task

NAME = "features"
SUMMARY = "features of images, and linear SVMs on them for VOC, Caltech or the embedded data set"
EXAMPLE = (
    "verydeep features extract --model nets/D/train_val.prototxt --weights D.caffemodel "
    "--data VOCdevkit/VOC2007 --scales 256,384,512,640,768 --out D_voc2007.h5"
)
CACHE = Path("build/features")
DEMO_OUT = Path("build/features-demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_extract(actions.add_parser("extract", help="write the features of a set of images"))
    _add_evaluate(actions.add_parser("evaluate", help="solve a task by linear SVMs on features"))
    add_apply_arguments(actions.add_parser("apply", help="classify images by a saved SVM"))
    _add_demo(
        actions.add_parser("demo", help="learn the digits 0 to 4, classify 5 to 9 by features")
    )


def _add_extract(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="DIR",
        help=f"an LMDB, Caltech-101 or -256, or a data set: {DATA_HELP}",
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="layout of --data (default: detected)")
    parser.add_argument(
        "--set",
        choices=(MAIN, ACTION),
        default=MAIN,
        help="set of VOC's lists (default: %(default)s)",
    )
    parser.add_argument(
        "--boxes", action="store_true", help="use the boxes of people in VOC's Action lists"
    )
    parser.add_argument(
        "--scales",
        metavar="Q,Q",
        help="scales: short sides in pixels (default: that of the bundle)",
    )
    parser.add_argument(
        "--aggregate",
        choices=AGGREGATES,
        default=AVERAGE,
        help="combination of the scales (default: %(default)s)",
    )
    add_flip_argument(parser)
    parser.add_argument(
        "--layer",
        metavar="BLOB",
        help="blob of the activations (default: the last but one FC layer)",
    )
    add_mean_argument(parser)
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="file of features: .h5 or .npz"
    )
    add_cache_arguments(parser, CACHE, "single scales")
    _add_output(parser)
    add_device_arguments(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", required=True, choices=ALL_TASKS, help="the task")
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="the task's data")
    parser.add_argument(
        "--features",
        required=True,
        nargs="+",
        type=Path,
        metavar="FILE",
        help="files of `extract`; several are stacked: two nets, or images and boxes",
    )
    parser.add_argument("--train", choices=SPLITS, help="training split of VOC")
    parser.add_argument("--test", choices=SPLITS, help="test split of VOC")
    parser.add_argument("--train-per-class", type=int, metavar="N", help="training images, Caltech")
    parser.add_argument("--test-per-class", type=int, metavar="N", help="maximum, Caltech")
    parser.add_argument(
        "--splits",
        type=int,
        default=RANDOM_SPLITS,
        metavar="N",
        help="random splits of Caltech (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the trained SVMs: .npz, for `apply`"
    )
    _add_grid(parser)
    _add_output(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=DEMO_OUT, metavar="DIR", help="folder (default: %(default)s)"
    )
    parser.add_argument("--max-iter", type=int, metavar="N", help="limit the training, for a trial")
    _add_grid(parser)
    _add_output(parser)
    add_device_arguments(parser)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--C",
        metavar="C,C",
        help="values from which C is chosen, or a single value (default: "
        f"{','.join(f'{C:g}' for C in GRID)})",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    actions = {"extract": _extract, "evaluate": _evaluate, "apply": apply, "demo": _demo}
    return actions[args.action](args)


def _extract(args: argparse.Namespace) -> int:
    check_feature_path(args.out)
    bundle = take_evaluation_settings(args)
    protocol = FeatureProtocol(parse_scales(args.scales), args.aggregate, layer=args.layer)
    protocol = dataclasses.replace(protocol, flip=choose_flip(args.model, args.flip))
    images = open_images(args.data, args.layout, args.set, args.boxes)
    cache = None if args.no_cache else DescriptorCache(args.cache)
    mean = None if args.mean_value is None else mean_values(args.mean_value)
    extractor = Extractor(images, open_backend(args), cache, mean)
    features = extractor.extract(args.model, args.weights, protocol)
    if bundle is not None:
        features.attributes["bundle"] = bundle.name
    write_features(args.out, features)
    if args.json:
        print(json.dumps({"out": str(args.out)} | features.attributes, indent=2))
    else:
        print(f"{args.out}: {len(features.names)} x {features.values.shape[1]} features")
        print("\n".join(f"  {name}: {value}" for name, value in features.attributes.items()))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    options = TaskOptions(
        args.train, args.test, args.train_per_class, args.test_per_class, args.splits, args.seed
    )
    grid = parse_grid(args.C)
    task = open_task(args.task, args.data, options)
    if args.save is not None:
        check_svm_path(args.save)
        if len(task.splits) > 1:
            raise UsageError(
                f"--save: {len(task.splits)} splits have an SVM each; expected one; add --splits 1"
            )
    features = [read_features(path) for path in args.features]
    outcome = solve(task, features, grid, args.seed)
    if args.save is not None:
        chosen = outcome.splits[0].choice.C
        saved = SavedSvm(outcome.svms[0], task.classes, outcome.members, chosen, task.name)
        write_svm(args.save, saved)
    return _print(args, outcome)


def _demo(args: argparse.Namespace) -> int:
    options = DemoOptions(args.out, args.threads, args.max_iter, parse_grid(args.C))
    return _print(args, run_demo(options, open_backend(args)))


def _print(args: argparse.Namespace, outcome: Outcome) -> int:
    if args.json:
        print(json.dumps(outcome_json(outcome), indent=2))
    else:
        print("\n".join(outcome_lines(outcome)))
    return 0


def parse_grid(words: str | None) -> tuple[float, ...]:
    """Parse the values of --C.

    Raises:
        UsageError: the text is not a list of numbers.
    """
    if words is None:
        return GRID
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError:
        raise UsageError(
            f"--C: expected numbers separated by commas, got {words!r}; write for example 0.1,1,10"
        ) from None
