"""Print the table of a net: shapes, parameters, multiply-adds, memory, receptive fields."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from prototxt_gen import heads, proto
from prototxt_gen.errors import DataError, UnsupportedError, UsageError, VerydeepError
from prototxt_gen.locate import located
from prototxt_gen.spec import NetSpecification, builtin_spec, net_names
from prototxt_gen.spec_toml import load_spec
from prototxt_gen.text import read_net, read_solver
from runtime.analysis.memory_estimate import GIB, budget_advice, in_gib
from runtime.analysis.summary import summarize
from runtime.analysis.summary_problems import joined, missing_parts
from runtime.analysis.summary_text import summary_text
from runtime.backend.registry import create_backend
from runtime.cli.devices import add_list_arguments, add_state_arguments, stages
from runtime.core.context import RunContext
from runtime.layers.factory import class_of, layer_type_list
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
        "--spec", metavar="FILE", help="your own net, in TOML: see docs/reference/spec.md"
    )
    net.add_argument(
        "--paper", action="store_true", help="print Tables 1 and 2 of the paper, for all its nets"
    )
    parser.add_argument(
        "--phase",
        choices=PHASE_NAMES,
        help="default: TEST for a net with Input layers, else TRAIN",
    )
    parser.add_argument(
        "--batch",
        type=_positive,
        metavar="N",
        help="batch size (default: the prototxt's; 1 for --net and --spec)",
    )
    parser.add_argument(
        "--shape",
        type=_shape,
        action="append",
        metavar="[NAME=]C,H,W",
        help="shape of the images, or of one sample of the source with the top NAME (repeatable); "
        "these sources are not opened",
    )
    parser.add_argument(
        "--solver",
        metavar="FILE",
        help="solver prototxt whose history is included in the memory (default: SGD)",
    )
    parser.add_argument(
        "--budget",
        type=_gib,
        metavar="GIB",
        help="advise how to fit into this memory; exit status 1 if the net does not fit",
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
    flags = [f"--{key}" for key in _OF_ONE_NET if getattr(args, key) is not None]
    if flags:
        raise UsageError(
            f"--paper: prints the paper's nets as they are; expected no {flags[0]}; remove it, or "
            "name one net with --net"
        )
    backend = create_backend("cpu")
    print(json.dumps(paper_dict(backend), indent=2) if args.json else paper_text(backend))
    return 0


def _net_param(args: argparse.Namespace) -> Any:
    """The NetParameter as written."""
    if args.model:
        return read_net(args.model)
    spec: NetSpecification = load_spec(args.spec) if args.spec else builtin_spec(args.net)
    return heads.train_val(spec)


def _net(args: argparse.Namespace, param: Any) -> Net:
    """The net in its shapes."""
    phase = PHASE_NAMES.index(args.phase) if args.phase else default_phase(param)
    backend = create_backend("cpu")
    context = RunContext(confine_lists=args.confine_lists)
    given = args.shape or []
    images = [shape for name, shape in given if name is None]
    if len(images) > 1:
        raise UsageError(
            f"--shape: expected one shape without a name, got {len(images)}; write NAME=C,H,W"
        )
    samples = {name: shape for name, shape in given if name is not None}
    try:
        return shape_net(
            param,
            phase,
            backend,
            context,
            args.level,
            stages(args),
            batch=args.batch or (None if args.model else 1),
            image=images[0] if images else None,
            samples=samples,
        )
    except VerydeepError as error:
        problems = missing_parts(param, phase, backend, context, args.level, stages(args))
        # Data is not missing where its shape is given, or where the net fails for another reason.
        without_data = bool(images) or not isinstance(error, (DataError, UnsupportedError))
        names = {name for name, _ in given}
        problems = _unexplained(param, problems, names, without_data)
        result = _explained(error, problems, args, param)
        if result is error:
            raise
        raise result from error


def _unexplained(
    param: Any,
    problems: Sequence[tuple[str, VerydeepError]],
    names: Collection[str | None],
    without_data: bool,
) -> list[tuple[str, VerydeepError]]:
    """The problems of layers that --shape does not name.

    With `without_data`, problems of missing data are left out.
    """
    return [
        (layer, fault)
        for layer, fault in problems
        if not _is_named(param, layer, names)
        and not (without_data and isinstance(fault, DataError))
    ]


def _explained(
    error: VerydeepError,
    problems: Sequence[tuple[str, VerydeepError]],
    args: argparse.Namespace,
    param: Any,
) -> VerydeepError:
    """The error, or one that lists all problems, with advice for data that is missing."""
    if len(problems) > 1:
        types = ", ".join(layer_type_list())
        label = str(args.model or param.name)
        result = joined(problems, _content(args.model), label, types)
    else:
        result = error
    faults = [fault for _, fault in problems] if len(problems) > 1 else [error]
    if any(isinstance(fault, DataError) for fault in faults):
        return type(result)(f"{result}{_advice(param, problems)}")
    return result


def _is_named(param: Any, name: str, named: Collection[str | None]) -> bool:
    """Whether --shape has the layer or one of its tops."""
    tops = [str(top) for layer in param.layer if layer.name == name for top in layer.top]
    return name in named or any(top in named for top in tops)


def _advice(param: Any, problems: Sequence[tuple[str, VerydeepError]]) -> str:
    names = {name for name, fault in problems if isinstance(fault, DataError)}
    tops = [str(layer.top[0]) for layer in param.layer if layer.name in names and layer.top]
    shapes = " ".join(f"--shape {top}=channels,height,width" for top in dict.fromkeys(tops))
    first = "or give the shape of the images instead: --shape channels,height,width"
    return f"\n{first}; of each source: {shapes}" if len(tops) > 1 else f"; {first}"


def _content(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def default_phase(param: Any) -> int:
    """TEST for a net with an Input layer, such as a deploy net, else TRAIN."""
    given = any(class_of(layer.type).is_input for layer in param.layer)
    return int(proto.TEST if given else proto.TRAIN)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, got {text!r}")
    return int(text)


def _shape(text: str) -> tuple[str | None, Shape]:
    """A shape of images, or NAME=shape of one sample, which may have any number of axes."""
    name, equals, dims = text.rpartition("=")
    try:
        shape = tuple(int(part) for part in dims.split(",")) if dims or not equals else ()
    except ValueError:
        shape = (0,)
    if equals and (not name or min(shape, default=1) < 1):
        raise argparse.ArgumentTypeError(
            f"expected the name of a source and dimensions such as gt=1,224,224, got {text!r}"
        )
    if not equals and (len(shape) != 3 or min(shape) < 1):
        raise argparse.ArgumentTypeError(
            f"expected channels, height and width such as 3,224,224, got {text!r}"
        )
    return (name if equals else None), shape


def _gib(text: str) -> int:
    """Gibibytes in bytes."""
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise argparse.ArgumentTypeError(f"expected gibibytes such as 12 or 7.5, got {text!r}")
    return int(size * GIB)
