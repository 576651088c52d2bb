"""`verydeep zoo`: the public Caffe models that are recognised, and their preprocessing."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from prototxt_gen.errors import SnapshotError, UsageError
from prototxt_gen.regular_file import RegularFile
from runtime.bundle.known_models import KNOWN_MODELS, KnownModel
from runtime.bundle.recognise import recognise_file
from runtime.cli.arguments import suggestion
from runtime.logs.glog import setup_logging

NAME = "zoo"
SUMMARY = "list the public Caffe models that are recognised, or identify a file of weights"
EXAMPLE = "verydeep zoo --identify VGG_ILSVRC_16_layers.caffemodel"

_CHUNK = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="print the facts of this model")
    parser.add_argument(
        "--identify", type=Path, metavar="FILE", help="recognise a file of weights by its layers"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging(logging.WARNING)
    if args.identify is not None:
        if args.model is not None:
            raise UsageError(
                f"zoo: MODEL {args.model} and --identify; expected one of them; omit the other"
            )
        return _identify(args.identify, args.json)
    if args.model is not None:
        _show(_named(args.model), args.json)
    elif args.json:
        print(json.dumps([_facts(model) for model in KNOWN_MODELS], indent=2))
    else:
        _list()
    return 0


def _named(name: str) -> KnownModel:
    for model in KNOWN_MODELS:
        if name.lower() in (model.name.lower(), model.file.lower()):
            return model
    names = [model.name for model in KNOWN_MODELS]
    hint = suggestion(name, names) or f"; expected one of {', '.join(names)}"
    raise UsageError(f"zoo: unknown model '{name}'{hint}")


def _list() -> None:
    rows = [("model", "classes", "input", "licence", "source")]
    for model in KNOWN_MODELS:
        height, width = model.preprocessing.crop
        size = f"{height}x{width}"
        rows.append((model.name, str(model.classes), size, model.licence, model.source))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        print("  ".join([*cells, row[4]]))
    print(
        "\nNothing is downloaded. Get the weights and the deploy prototxt from the source page,\n"
        "and check them with `verydeep zoo --identify FILE`."
    )


def _show(model: KnownModel, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_facts(model), indent=2))
        return
    print(f"{model.name}: {model.classes} classes")
    lines = {
        "source": model.source,
        "weights": model.file,
        "licence": model.licence,
        "SHA-1": model.sha1 or "not published",
        "preprocessing": model.preprocessing.describe(),
        "note": model.note,
    }
    for key, value in lines.items():
        if value:
            print(f"  {key}: {value}")
    print(
        f"  use: get {model.file} and its deploy prototxt from the source page into one folder, "
        f"then\n    verydeep zoo --identify {model.file}\n"
        f"    verydeep finetune --weights {model.file} --model deploy.prototxt --data DIR"
    )


def _facts(model: KnownModel) -> dict[str, Any]:
    facts = dataclasses.asdict(model)
    del facts["layers"], facts["absent"]
    return facts


def _identify(path: Path, as_json: bool) -> int:
    recognised = recognise_file(path)
    digest = _sha1(path)
    by_digest = next((model for model in KNOWN_MODELS if model.sha1 == digest), None)
    model = by_digest or (recognised.model if recognised else None)
    if as_json:
        facts = None if model is None else _facts(model)
        print(
            json.dumps(
                {
                    "file": str(path),
                    "sha1": digest,
                    "model": facts,
                    "exact": by_digest is not None or bool(recognised and recognised.exact),
                },
                indent=2,
            )
        )
    elif model is None:
        print(f"{path}: no known model has these layers; sha1 {digest}")
    else:
        print(f"{path}: {_verdict(model, by_digest is not None, recognised is not None)}")
        print(f"  preprocessing: {model.preprocessing.describe()}")
        print(f"  licence: {model.licence}\n  source: {model.source}\n  sha1: {digest}")
        if model.note:
            print(f"  note: {model.note}")
        if recognised is not None and not recognised.exact and by_digest is None:
            print(f"  classes: not the {model.classes} of {model.name}; probably fine-tuned")
    return 0 if model is not None else 1


def _verdict(model: KnownModel, by_digest: bool, by_layers: bool) -> str:
    if by_digest:
        return f"{model.name}, with the published SHA-1"
    reason = "by its layers" if by_layers else ""
    if model.sha1:
        return f"{model.name} {reason}; its SHA-1 is not the published one, {model.sha1}"
    return f"{model.name} {reason}"


def _sha1(path: Path) -> str:
    # The published digests are SHA-1; they identify a file and do not protect it.
    digest = hashlib.sha1(usedforsecurity=False)
    with RegularFile(path, SnapshotError).open() as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()
