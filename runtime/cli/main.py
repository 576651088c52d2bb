"""`verydeep`: one verb a job, Caffe's verbs and flags where Caffe has them."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from types import ModuleType

from prototxt_gen.errors import VerydeepError

_DESCRIPTION = """\
The VGG paper's system: Caffe nets generated, trained, evaluated and exported.

`verydeep VERB --help` explains a verb and shows an example. Flags are taken as --flag and, as Caffe
writes them, -flag. Results go to standard output, logs to standard error.
"""


def verbs() -> dict[str, ModuleType]:
    """All verb modules by name, in alphabetical order."""
    package = importlib.import_module("runtime.cli")
    modules = [
        importlib.import_module(f"runtime.cli.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    ]
    found = {m.NAME: m for m in modules if hasattr(m, "NAME")}
    return dict(sorted(found.items()))


def caffe_flags(argv: Sequence[str]) -> list[str]:
    """Rewrite Caffe's `-solver=x` to `--solver=x`; short flags and negative numbers stay."""
    return [
        f"-{word}" if re.match(r"-[A-Za-z]\w*[-_A-Za-z][-\w]*(=|$)", word) else word
        for word in argv
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verydeep",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    sub = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB")
    for name, module in verbs().items():
        child = sub.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"example:\n  {module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run)
    return parser


def _version() -> str:
    try:
        return f"verydeep {metadata.version('verydeep')}"
    except metadata.PackageNotFoundError:
        return "verydeep (not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Exit status: 0 done, 1 a negative result, 2 the user's error, 130 Ctrl-C."""
    parser = _parser()
    args = parser.parse_args(caffe_flags(sys.argv[1:] if argv is None else argv))
    if args.verb is None:
        parser.print_help()
        return 0
    try:
        return int(args.run(args))
    except VerydeepError as error:
        print(f"verydeep {args.verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        print(f"verydeep {args.verb}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
