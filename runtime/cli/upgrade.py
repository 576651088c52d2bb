"""Convert a net, a solver or weights of any Caffe version to the current form, or back to V1.

Caffe: upgrade_net_proto_text, upgrade_net_proto_binary and upgrade_solver_proto_text.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

from prototxt_gen import proto, text
from prototxt_gen.dialects import DIALECTS, refusals
from prototxt_gen.downgrade import downgrade_v1
from prototxt_gen.errors import ProtoError, SnapshotError, UnsupportedError, UsageError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.locate import located
from prototxt_gen.proto import Message
from prototxt_gen.sidecar import locate_sidecar
from prototxt_gen.solver import solver_text
from prototxt_gen.upgrade import upgrade_net, upgrade_solver
from runtime.backend.registry import create_backend
from runtime.cli.console import beside
from runtime.core.context import RunContext
from runtime.net import Net
from runtime.weights.caffemodel import (
    CURRENT,
    V1,
    blob_data,
    read_caffemodel,
    read_net,
    write_caffemodel,
)
from runtime.weights.net_weights import copy_trained_layers, save
from runtime.weights.weights_file import is_hdf5

NAME = "upgrade"
SUMMARY = "convert a net, solver or weights of an older Caffe to the current form"
EXAMPLE = "verydeep upgrade VGG_ILSVRC_16_layers.caffemodel vgg16.caffemodel"

# Bytes that no prototxt has.
_CONTROL = bytes(set(range(32)) - {9, 10, 12, 13})
_SOLVER_WORD = re.compile(
    r"^\s*(base_lr|lr_policy|max_iter|solver_mode|(train_|test_)?net)\s*:", re.M
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="IN", help="a net or solver prototxt, or weights; the kind is detected"
    )
    parser.add_argument(
        "output", metavar="OUT", nargs="?", help="output file; may be IN; none with --check"
    )
    parser.add_argument(
        "--check",
        choices=tuple(DIALECTS),
        metavar="DIALECT",
        help="write nothing; list what this dialect of Caffe would refuse in a net or solver, and "
        f"exit with status 1 if there is anything: {', '.join(DIALECTS)}",
    )
    parser.add_argument(
        "--to",
        choices=("current", "v1"),
        default="current",
        help="v1: the form of the released VGG nets, for old readers",
    )
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    parser.add_argument(
        "--model",
        metavar="FILE",
        help="write the weights of this net, with InnerProduct weights converted for its "
        "convolutions (dense.prototxt)",
    )


def run(args: argparse.Namespace) -> int:
    if args.check is not None:
        return _check(args)
    if args.output is None:
        raise UsageError("OUT is missing; expected IN OUT, got IN alone; give it or --check")
    form = V1 if args.to == "v1" else CURRENT
    if args.model is not None:
        kind, sentences = "weights", _convert_weights(args.input, args.output, args.model, form)
    elif is_hdf5(args.input):
        raise UnsupportedError(
            f"{args.input}: weights in HDF5 have one form only; expected a prototxt or a "
            ".caffemodel; there is nothing to upgrade"
        )
    elif _is_text(args.input):
        kind, sentences = _upgrade_text(args.input, args.output, form)
    else:
        kind, sentences = _upgrade_weights(args.input, args.output, form)
    if args.json:
        with beside(args.output):
            print(json.dumps({"kind": kind, "done": sentences, "output": args.output}))
        return 0
    for sentence in sentences:
        print(f"{args.input}: {sentence}", file=sys.stderr)
    with beside(args.output):
        print(args.output)
    return 0


def _check(args: argparse.Namespace) -> int:
    """List what a dialect would refuse in a text; the status is 1 if there is anything."""
    if args.output is not None or args.model is not None or args.to != "current":
        raise UsageError(
            "--check writes nothing; expected IN alone, got OUT, --model or --to as well; leave "
            "them out"
        )
    if is_hdf5(args.input) or not _is_text(args.input):
        raise UnsupportedError(
            f"{args.input}: weights are the same in all dialects; expected the prototxt of a net "
            "or solver for --check; give the prototxt"
        )
    message = _read_text(args.input)
    if isinstance(message, proto.SolverParameter):
        upgrade_solver(message, args.input)
    else:
        upgrade_net(message, args.input)
    refused = refusals(message, args.check)
    if args.json:
        print(json.dumps({"dialect": args.check, "refused": refused}))
    else:
        for sentence in refused:
            print(f"{args.input}: {sentence}")
    return 1 if refused else 0


def _is_text(path: str) -> bool:
    with Path(path).open("rb") as stream:
        head = stream.read(4096)
    return head.translate(None, _CONTROL) == head


def _upgrade_text(path: str, output: str, form: str) -> tuple[str, list[str]]:
    message = _read_text(path)
    if isinstance(message, proto.SolverParameter):
        if form == V1:
            raise UnsupportedError(
                f"{path}: a solver has no V1 form; expected a net or weights for --to v1; "
                "leave --to out"
            )
        kind, sentences = "solver", upgrade_solver(message, path)
    else:
        kind, sentences = "net", upgrade_net(message, path)
        if form == V1:
            message = downgrade_v1(message, path)
            sentences = [f"{len(message.layers)} layers written in the V1 form"]
    sidecar = locate_sidecar(path) if kind == "solver" else None
    if sidecar is None:
        text.write(output, message)
    else:
        atomic_write_text(output, solver_text(message, sidecar), ProtoError)
    return kind, sentences or ["is of the current form already"]


def _read_text(path: str) -> Message:
    """A net or a solver, whichever the text parses as."""
    try:
        return text.read(path, proto.NetParameter)
    except ProtoError as error:
        net_error = error
    try:
        return text.read(path, proto.SolverParameter)
    except ProtoError as solver_error:
        content = Path(path).read_text(encoding="utf-8", errors="replace")
        raise (solver_error if _SOLVER_WORD.search(content) else net_error) from None


def _upgrade_weights(path: str, output: str, form: str) -> tuple[str, list[str]]:
    layers = read_caffemodel(path)
    net, blobs = read_net(path)
    named = list(zip(net.layer, blobs, strict=True))
    data = (
        [blob_data(blob, layer.type, index) for index, blob in enumerate(of_layer)]
        for layer, of_layer in named
    )
    write_caffemodel(output, net, data, form)
    sentences = []
    if any(layer.nvidia for layer in layers):
        sentences.append("NVIDIA's fields, raw data among them, written as BVLC's")
    if layers[0].form != form:
        sentences.append(f"{len(layers)} layers of the {layers[0].form} form written in {form}")
    return "weights", sentences or [f"is of the {form} form already"]


def _convert_weights(path: str, output: str, model: str, form: str) -> list[str]:
    """Write the weights of a net from a file, InnerProduct weights as those of its convolutions."""
    param = text.read_net(model)
    context = RunContext(fill_weights=False)
    with located(model):
        net = Net(param, proto.TEST, create_backend("cpu"), context)
    with net:
        report = copy_trained_layers(net, path)
        if report.missing:
            raise SnapshotError(
                f"{path}: no weights for some layers of {model}; expected weights for all of them; "
                f"give the weights that belong to it\n{report.table()}"
            )
        save(net, output, fmt=V1 if form == V1 else None)
    sentences = [f"written for {model}: {len(report.loaded)} layers"]
    if report.converted:
        sentences.append(f"InnerProduct weights converted: {', '.join(report.converted.values())}")
    if report.unused:
        sentences.append(f"left out, not in the net: {', '.join(report.unused)}")
    return sentences
