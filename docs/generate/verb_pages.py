"""A page for each verb of the command line, from its argparse parser."""

from __future__ import annotations

import argparse

from api_pages import toctree

from runtime.cli.main import verb_parsers, verbs


def pages() -> dict[str, str]:
    """Markdown by file name: one page for each verb, and a list of them."""
    modules, parsers = verbs(), verb_parsers()
    index = ["# Commands", "", "| Command | |", "|---|---|"]
    found = {}
    for name, parser in parsers.items():
        summary = modules[name].SUMMARY
        index.append(f"| [`verydeep {name}`]({name}.md) | {_cell(summary)} |")
        found[f"{name}.md"] = _page(name, summary, modules[name].EXAMPLE, parser)
    return {"index.md": "\n".join([*index, *toctree(found)]) + "\n", **found}


def _page(name: str, summary: str, example: str, parser: argparse.ArgumentParser) -> str:
    lines = [f"# verydeep {name}", "", f"{summary[:1].upper()}{summary[1:]}.", ""]
    lines += ["```sh", example, "```", ""]
    children = subparsers(parser)
    for child in children.values():
        lines += [f"## {child.prog}", "", *_arguments(child)]
    if not children:
        lines += _arguments(parser)
    return "\n".join(lines) + "\n"


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a verb's actions, such as `data info`."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    lines = ["```text", usage, "```", "", "| Argument | Default | |", "|---|---|---|"]
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            lines.append(f"| {_names(action)} | {_default(action)} | {_help(action)} |")
    return [*lines, ""]


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    return "<br>".join(f"`{_cell(flag + value)}`" for flag in action.option_strings)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return action.dest.upper()


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "required"
    if action.default in (None, False, "", argparse.SUPPRESS):
        return ""
    return f"`{_cell(str(action.default))}`"


def _help(action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter(prog="verydeep")
    return _cell(formatter._expand_help(action)) if action.help else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
