"""The command `verydeep`: it parses the arguments, runs a verb and reports errors."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

from prototxt_gen.errors import UsageError, VerydeepError
from runtime.cli.arguments import Parser, children, leaves
from runtime.cli.completion import answer_completion
from runtime.cli.console import Console
from runtime.cli.shared_flags import (
    add_shared_arguments,
    flags_without_effect,
    shared_settings,
)
from runtime.cli.usage import log_flags_help
from runtime.logs.glog import close_logging, lost_log_files

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE)
"""Errors of writing to standard output; functions that write other files raise typed errors."""
_DESCRIPTION = """\
Generates, trains, evaluates and exports Caffe nets, among them those of the VGG paper.

`verydeep help VERB` describes a verb and shows an example. Flags may be written as --flag or -flag,
with `-` or `_` between words, before or after the verb. Results go to standard output, logs to
standard error.
"""


def verbs() -> dict[str, ModuleType]:
    """All verb modules by name, in alphabetical order."""
    package = importlib.import_module("runtime.cli")
    modules = [
        importlib.import_module(f"runtime.cli.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    ]
    named = {m.NAME: m for m in modules if hasattr(m, "NAME")}
    return dict(sorted(named.items()))


def verb_parsers() -> dict[str, Parser]:
    """The argument parser of each verb, by its name."""
    return children(_parser())


def _parser() -> Parser:
    parser = Parser(prog="verydeep", description=_DESCRIPTION, epilog=log_flags_help())
    parser.add_argument("--version", action="version", version=_version())
    sub = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", parser_class=Parser)
    for name, module in verbs().items():
        child = sub.add_parser(
            name,
            help=module.SUMMARY,
            description=module.SUMMARY,
            epilog=f"example:\n  {module.EXAMPLE}",
        )
        module.add_arguments(child)
        for leaf in leaves(child):
            add_shared_arguments(leaf, name)
            leaf.without_effect = flags_without_effect(name)
        child.set_defaults(run=module.run)
    return parser


def _version() -> str:
    try:
        return f"verydeep {metadata.version('verydeep')}"
    except metadata.PackageNotFoundError:
        return "verydeep (not installed)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Exit status: 0 done, 1 a negative result or output that was lost, 2 the user's error, 130
    Ctrl-C, 143 SIGTERM.
    """
    console = Console()
    try:
        with console.lenient_messages():
            status = _run(sys.argv[1:] if argv is None else argv, console)
    except SystemExit as ended:
        # argparse exits after --help and --version.
        raise SystemExit(_finish(console, int(ended.code or 0))) from None
    else:
        return _finish(console, status)
    finally:
        close_logging()


def _run(argv: Sequence[str], console: Console) -> int:
    verb = "verydeep"
    try:
        parser = _parser()
        answer_completion(parser)
        args = _parsed(parser, _help_words(argv), console)
        if args.verb is None:
            parser.print_help()
            return 0
        verb = f"verydeep {args.verb}"
        for note in children(parser)[args.verb].notes:
            console.report(f"{verb}: {note}")
        _require_folder()
        with shared_settings(args):
            return int(args.run(args))
    except VerydeepError as error:
        console.report(f"{verb}: {error}")
        return error.status
    except KeyboardInterrupt:
        console.report(f"{verb}: interrupted")
        return 130
    except (OSError, UnicodeEncodeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and not error.filename:
            console.lose(error)
            return 1
        console.report(f"{verb}: {_described(error)}")
        return VerydeepError.status


def _parsed(parser: Parser, words: Sequence[str], console: Console) -> argparse.Namespace:
    """The parsed arguments; the process ends, as with argparse, if they do not parse."""
    try:
        return parser.parse_args(words)
    except UsageError as error:
        console.report(str(error))
        raise SystemExit(UsageError.status) from None


def _help_words(argv: Sequence[str]) -> list[str]:
    """`help VERB` as `VERB --help`; flags and a second `help` have no effect there."""
    if list(argv[:1]) != ["help"]:
        return list(argv)
    return [*(word for word in argv[1:] if word != "help" and word[:1] != "-"), "--help"]


def _finish(console: Console, status: int) -> int:
    """Flush standard output, and return the exit status."""
    console.flush()
    if console.lost:
        console.report(
            f"verydeep: standard output cannot be written: {console.lost}; expected room for the "
            "results; free some space, or redirect the output to another file"
        )
    lost = console.lost is not None or lost_log_files()
    return status or int(lost)


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError as cause:
        raise VerydeepError(
            f"the working folder cannot be used: {cause.strerror}; expected a folder that exists, "
            "because relative paths begin there; change into another folder (cd)"
        ) from cause


def _described(error: Exception) -> str:
    if isinstance(error, OSError):
        label = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{label}{error.strerror or error}; expected to read or write it; check the path"
    if isinstance(error, UnicodeEncodeError):
        return (
            f"{error.object!r}: has no form in the encoding {error.encoding} of file names; "
            "expected a UTF-8 locale; set LC_ALL=C.UTF-8"
        )
    return f"not enough memory: {error}; expected more; use a smaller batch or smaller files"


if __name__ == "__main__":
    sys.exit(main())
