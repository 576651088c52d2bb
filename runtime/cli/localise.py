"""Trains and evaluates localisation nets. Paper: appendix A."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prototxt_gen.localisation import ALL, FINE_TUNINGS, PER_CLASS, REGRESSIONS
from prototxt_gen.vgg import NETS
from runtime.backend.base import Backend
from runtime.cli.devices import add_device_arguments, open_backend
from runtime.job.prepare import DEMO
from runtime.logs.glog import setup_logging
from runtime.paper.driver import RecipeOptions
from runtime.paper.localisation.pictures import draw_boxes
from runtime.paper.localisation.published import SCALES, TABLES, BoxRun
from runtime.paper.localisation.published import runs as runs_of
from runtime.paper.localisation.tables import BoxTable, BoxTables, text_table
from runtime.paper.localisation.training import BoxTraining, train_boxes
from runtime.paper.localisation.truth import Truth, read_truth
from runtime.paper.report import write_table
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting, read_setting

NAME = "localise"
SUMMARY = "train nets that predict boxes, and measure Tables 8 and 9 of the paper"
EXAMPLE = "verydeep localise evaluate --net A --out build/paper --table 8"

_OUT = Path("build/paper")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train one localisation net, or all of the tables")
    _add_common(train)
    train.add_argument(
        "--scale", type=int, choices=SCALES, help="train one net, at this training scale"
    )
    train.add_argument(
        "--regression",
        choices=REGRESSIONS,
        default=PER_CLASS,
        help="with --scale: a box for each class, or one for all classes (default: %(default)s)",
    )
    train.add_argument(
        "--fine-tune",
        choices=FINE_TUNINGS,
        default=ALL,
        help="with --scale: the layers that are trained (default: %(default)s)",
    )
    train.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="initial classification weights (default: train the classification net first)",
    )
    train.add_argument(
        "--max-iter", type=int, metavar="N", help="limit every run to N iterations, for a trial"
    )
    train.add_argument(
        "--data",
        default=DEMO,
        metavar="DIR",
        help="ILSVRC-2012 with its boxes, or 'demo' for the embedded data set (default)",
    )
    add_device_arguments(train)
    evaluate = actions.add_parser("evaluate", help="measure Tables 8 and 9 on the trained nets")
    _add_common(evaluate)
    evaluate.add_argument("--table", type=int, choices=TABLES, help="measure one table only")
    evaluate.add_argument("--data", metavar="DIR", help="the folder of the images, if it was moved")
    evaluate.add_argument("--images", type=int, metavar="N", help="use the first N images only")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    add_device_arguments(evaluate)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--net",
        choices=list(NETS),
        help="net of the paper (default: D; A on the embedded data set)",
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help="run folder (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    return _train(args) if args.action == "train" else _evaluate(args)


def _train(args: argparse.Namespace) -> int:
    setting = Setting(args.data)
    net = _net(args, setting)
    runs = runs_of(net)
    if args.scale is not None:
        runs = (BoxRun(net, args.scale, args.regression, args.fine_tune),)
    options = BoxTraining(RecipeOptions(args.threads, args.max_iter), args.weights)
    finished = train_boxes(RunFolder(args.out), setting, runs, open_backend(args), options)
    print("\n".join(done.describe() for done in finished))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    folder, setting = RunFolder(args.out), read_setting(args.out)
    root = folder.data / "images" if setting.demo else Path(setting.data)
    truth = read_truth(Path(args.data) if args.data else root, args.images)
    tables = measure(args, folder, setting, truth, open_backend(args))
    if args.json:
        print(json.dumps([table.to_json() for table in tables], indent=2))
        return 0
    print("\n\n".join(text_table(table, setting.words()) for table in tables))
    return 0


def measure(
    args: argparse.Namespace, folder: RunFolder, setting: Setting, truth: Truth, backend: Backend
) -> list[BoxTable]:
    """Measure tables; write each as JSON, with a picture of its best row."""
    maker = BoxTables(folder, setting, _net(args, setting), truth, backend)
    tables = []
    for number in TABLES if args.table is None else (args.table,):
        table = maker.table(number)
        path = write_table(folder.tables, table.to_json())
        best = table.best()
        if best is not None:
            name, localised = best
            title = f"Table {number}, {name}: {100 * localised.error:.1f} % wrong"
            picture = path.with_suffix(".png")
            draw_boxes(truth, localised.boxes, localised.correct, picture, title)
        tables.append(table)
    return tables


def _net(args: argparse.Namespace, setting: Setting) -> str:
    return str(args.net or ("A" if setting.demo else "D"))
