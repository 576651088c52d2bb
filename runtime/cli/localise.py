"""Localisation: nets of boxes trained and judged. Paper: appendix A."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.localization import ALL, FINE_TUNINGS, PER_CLASS, REGRESSIONS
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
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting, read_setting

NAME = "localise"
SUMMARY = "train nets that predict boxes, and measure Tables 8 and 9 of the paper"
EXAMPLE = "verydeep localise evaluate --net A --out build/paper --table 8"

_OUT = Path("build/paper")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    train = ways.add_parser("train", help="train one net of boxes, or all that the tables need")
    _add_common(train)
    train.add_argument(
        "--scale", type=int, choices=SCALES, help="one run at this training scale, not all runs"
    )
    train.add_argument(
        "--regression",
        choices=REGRESSIONS,
        default=PER_CLASS,
        help="with --scale: a box for each class, or a single one (default: %(default)s)",
    )
    train.add_argument(
        "--fine-tune",
        choices=FINE_TUNINGS,
        default=ALL,
        help="with --scale: which layers learn (default: %(default)s)",
    )
    train.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="classification weights to start from, in place of training the net of each scale",
    )
    train.add_argument("--max-iter", type=int, metavar="N", help="cut every run, for a try")
    train.add_argument(
        "--data",
        default=DEMO,
        metavar="DIR",
        help="ILSVRC-2012 with its boxes, or 'demo': in miniature (default)",
    )
    add_device_arguments(train)
    evaluate = ways.add_parser("evaluate", help="measure Tables 8 and 9 on what is trained")
    _add_common(evaluate)
    evaluate.add_argument("--table", type=int, choices=TABLES, help="one table alone")
    evaluate.add_argument(
        "--data", metavar="DIR", help="the folder of the images, if they were moved"
    )
    evaluate.add_argument("--images", type=int, metavar="N", help="the first N images alone")
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    add_device_arguments(evaluate)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--net", choices=list(NETS), help="net of the paper (D; on the embedded data set A)"
    )
    parser.add_argument(
        "--out", type=Path, default=_OUT, metavar="DIR", help="run folder (%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    setup_logging(terse=True)
    return _train(args) if args.way == "train" else _evaluate(args)


def _train(args: argparse.Namespace) -> int:
    setting = Setting(args.data)
    net = _net(args, setting)
    wanted = runs_of(net)
    if args.scale is not None:
        wanted = (BoxRun(net, args.scale, args.regression, args.fine_tune),)
    options = BoxTraining(RecipeOptions(args.threads, args.max_iter), args.weights)
    found = train_boxes(RunFolder(args.out), setting, wanted, open_backend(args), options)
    for done in found:
        print(f"{done.name}: {done.note['iterations']} iterations, {done.weights}")
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
    """Measure tables; each is written as JSON, with a picture of its best row."""
    maker = BoxTables(folder, setting, _net(args, setting), truth, backend)
    found = []
    for number in TABLES if args.table is None else (args.table,):
        table = maker.table(number)
        path = folder.tables / f"table{number}.json"
        atomic_write_text(path, json.dumps(table.to_json(), indent=2) + "\n", DataError)
        best = table.best()
        if best is not None:
            title = f"Table {number}, {best[0]}: {100 * best[1].error:.1f} % wrong"
            draw_boxes(truth, best[1].boxes, path.with_suffix(".png"), title)
        found.append(table)
    return found


def _net(args: argparse.Namespace, setting: Setting) -> str:
    return str(args.net or ("A" if setting.demo else "D"))
