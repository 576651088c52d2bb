"""Completion of commands in the shell, by the optional package argcomplete."""

from __future__ import annotations

import argparse
import importlib
import os

from runtime.cli.arguments import Parser, children, leaves

VARIABLE = "_ARGCOMPLETE"
"""Set by the shell function of argcomplete when it asks for completions."""


def answer_completion(parser: Parser) -> None:
    """If the shell asks for completions, write them and end the process; otherwise return.

    Raises:
        SystemExit: the package is missing.
    """
    if VARIABLE not in os.environ:
        return
    try:
        argcomplete = importlib.import_module("argcomplete")
    except ImportError:
        raise SystemExit(1) from None
    _prepare(parser)
    argcomplete.autocomplete(parser)


def _prepare(parser: Parser) -> None:
    """Add what is accepted before the verb: `help`, and the flags of all verbs."""
    parser.rewrites = False
    below = children(parser)
    for child in below.values():
        for leaf in leaves(child):
            for action in leaf._actions:
                _add_copy(parser, action)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = action.add_parser("help", help="describe a verb", add_help=False)
            words.rewrites = False
            words.add_argument("verb", nargs="?", choices=list(below))


def _add_copy(parser: Parser, action: argparse.Action) -> None:
    """Add a flag to the parser, unless it has one of that name."""
    flags = [flag for flag in action.option_strings if flag.startswith("--")]
    if not flags or any(flag in parser._option_string_actions for flag in flags):
        return
    if action.nargs == 0:
        parser.add_argument(*flags, action="store_true")
    else:
        parser.add_argument(*flags, choices=action.choices)
