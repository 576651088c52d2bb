"""The usage line and the help page of a verb."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from runtime.logs.glog_settings import LOG_FLAGS, PREFIX

_FLAG_COLUMN = 28


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Lists the flags of a verb without those of glog, which every verb has."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_FLAG_COLUMN)

    def add_argument(self, action: argparse.Action) -> None:
        """Add the line of a flag."""
        if not action.dest.startswith(PREFIX):
            super().add_argument(action)


def flag_group(parser: argparse.ArgumentParser, title: str) -> argparse._ArgumentGroup:
    """The group of flags with this title, which a help page lists after the verb's own flags."""
    groups = {group.title: group for group in parser._action_groups}
    return groups.get(title) or parser.add_argument_group(title)


def short_usage(parser: argparse.ArgumentParser) -> str:
    """The program, its required flags, `[options]` and its positional arguments."""
    groups = [group for group in parser._mutually_exclusive_groups if group.required]
    grouped = {id(action) for group in groups for action in group._group_actions}
    flags, positional, others = [], [], False
    for action in parser._actions:
        if id(action) in grouped:
            continue
        if not action.option_strings:
            positional.append(_positional(action))
        elif action.required:
            flags.append(_flag(action))
        else:
            others = True
    choices = [_choice(group._group_actions) for group in groups]
    options = ["[options]"] if others else []
    return " ".join([parser.prog, *flags, *choices, *options, *positional])


def log_flags_help() -> str:
    """The flags of glog with their descriptions, one a line."""
    lines = ["logging flags of every verb, as with glog:"]
    for name, flag in LOG_FLAGS.items():
        shown = f"--{name}" if flag.metavar is None else f"--{name} {flag.metavar}"
        lines.append(f"  {shown:22} {flag.help}")
    return "\n".join(lines)


def log_flags_line() -> str:
    """The names of glog's flags, in a sentence."""
    names = [f"--{name}" for name in LOG_FLAGS]
    return f"{', '.join(names[:-1])} and {names[-1]}:\n  as with glog; see `verydeep help`"


def _choice(actions: Iterable[argparse.Action]) -> str:
    forms = [_flag(action) if action.option_strings else str(action.metavar) for action in actions]
    return f"({' | '.join(forms)})"


def _flag(action: argparse.Action) -> str:
    flag = action.option_strings[0]
    return flag if action.nargs == 0 else f"{flag} {action.metavar or action.dest.upper()}"


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    forms = {
        argparse.PARSER: f"{name} ...",
        argparse.ONE_OR_MORE: f"{name} [{name} ...]",
        argparse.ZERO_OR_MORE: f"[{name} ...]",
        argparse.OPTIONAL: f"[{name}]",
    }
    return forms.get(str(action.nargs), name) if action.nargs is not None else name
