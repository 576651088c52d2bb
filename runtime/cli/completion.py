"""Completion of commands in the shell, by the optional package argcomplete."""

from __future__ import annotations

import argparse
import importlib
import os

VARIABLE = "_ARGCOMPLETE"
"""Set by the shell function of argcomplete when it asks for completions."""


def answer_completion(parser: argparse.ArgumentParser) -> None:
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
    argcomplete.autocomplete(parser)
