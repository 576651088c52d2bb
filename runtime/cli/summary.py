"""Print the table of a net: shapes, parameters, multiply-adds, memory, receptive fields."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from typing import Any

from prototxt_gen import heads, proto
from prototxt_gen.errors import DataError, UnsupportedError
from prototxt_gen.locate import located
from prototxt_gen.spec import NetSpecification, builtin_spec, net_names
from prototxt_gen.spec_toml import load_spec
from prototxt_gen.text import read_net, read_solver
from runtime.analysis.memory_estimate import GIB, budget_advice, in_gib
from runtime.analysis.summary import summarize
from runtime.analysis.summary_text import summary_text
from runtime.backend.registry import create_backend
from runtime.cli.devices import add_list_arguments, add_state_arguments, stages
from runtime.core.context import RunContext
from runtime.layers.factory import class_of
from runtime.logs.glog import setup_logging
from runtime.net import Net
from runtime.net.building import PHASE_NAMES
from runtime.net.shape_net import Shape, shape_net
from runtime.paper.classification.net_tables import paper_dict, paper_text

NAME = "summary"
SUMMARY = "print a net's layers with their shapes, parameters, multiply-adds, memory and fields"
EXAMPLE = "verydeep summary --net D --batch 64 --budget 12"

_OF_ONE_NET = ("phase", "batch", "shape", "solver", "budget")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    net = parser.add_mutually_exclusive_group(required=True)
    net.add_argument("model", nargs="?", metavar="PROTOTXT", help="a net of any kind")
    net.add_argument("--net", choices=net_names(), help="a built-in net")
    net.add_argument(
        "--spec", metavar="FILE", help="a net of your own, in TOML: docs/reference/spec.md"
    )
    net.add_argument(
        "--paper", action="store_true", help="print the paper's Tables 1 and 2, for all of its nets"
    )
    parser.add_argument(
        "--phase",
        choices=PHASE_NAMES,
        help="default: TEST for a net that images are put into (Input layers), else TRAIN",
    )
    parser.add_argument(
        "--batch",
        type=_positive,
        metavar="N",
        help="images of a pass (default: the prototxt's; 1 for --net and --spec)",
    )
    parser.add_argument(
        "--shape", type=_shape, metavar="C,H,W", help="images of this shape; no data is looked at"
    )
    parser.add_argument(
        "--solver", metavar="FILE", help="solver prototxt whose history is counted (default: SGD)"
    )
    parser.add_argument(
        "--budget",
        type=_gib,
        metavar="GIB",
        help="say how to fit into so much memory; exit status 1 where it does not",
    )
    add_state_arguments(parser)
    add_list_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    if args.paper:
        return _paper(args)
    solver = read_solver(args.solver) if args.solver else proto.SolverParameter()
    param = _net_param(args)
    types = {str(layer.name): str(layer.type) for layer in param.layer}
    with located(args.model) if args.model else contextlib.nullcontext(), _net(args, param) as net:
        summary = summarize(net, solver, types)
        advice = "" if args.budget is None else budget_advice(net, args.budget, solver=solver)
    result = summary.as_dict()
    text = summary_text(summary)
    if args.budget is not None:
        result["advice"] = advice
        fits = f"fits: {in_gib(summary.memory.total)} of {in_gib(args.budget)}"
        text += f"\n\n{advice or fits}"
    print(json.dumps(result, indent=2) if args.json else text)
    return 1 if advice else 0


def _paper(args: argparse.Namespace) -> int:
    given = [f"--{key}" for key in _OF_ONE_NET if getattr(args, key) is not None]
    if given:
        raise UnsupportedError(
            f"--paper: prints the paper's nets as they are; expected no {given[0]}; remove it, or "
            "name one net with --net"
        )
    backend = create_backend("cpu")
    print(json.dumps(paper_dict(backend), indent=2) if args.json else paper_text(backend))
    return 0


def _net_param(args: argparse.Namespace) -> Any:
    """The net as written."""
    if args.model:
        return read_net(args.model)
    spec: NetSpecification = load_spec(args.spec) if args.spec else builtin_spec(args.net)
    return heads.train_val(spec)


def _net(args: argparse.Namespace, param: Any) -> Net:
    """The net in its shapes."""
    phase = PHASE_NAMES.index(args.phase) if args.phase else default_phase(param)
    context = RunContext(confine_lists=args.confine_lists)
    try:
        return shape_net(
            param,
            phase,
            create_backend("cpu"),
            context,
            args.level,
            stages(args),
            batch=args.batch or (None if args.model else 1),
            image=args.shape,
        )
    except DataError as error:
        raise DataError(
            f"{error}; or give the shape of the images instead: --shape channels,height,width"
        ) from error


def default_phase(param: Any) -> int:
    """TEST for a net with an Input layer, such as a deploy net, else TRAIN."""
    given = any(class_of(layer.type).is_input for layer in param.layer)
    return int(proto.TEST if given else proto.TRAIN)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _shape(text: str) -> Shape:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"expected channels, height and width such as 3,224,224, got {text!r}"
        )
    return shape


def _gib(text: str) -> int:
    """Gibibytes in bytes."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"expected gibibytes such as 12 or 7.5, got {text!r}")
    return int(size * GIB)
