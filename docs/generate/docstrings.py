"""Docstrings converted from Markdown to reStructuredText."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`]+`)")
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Shapes|Units|Source|Paper|Caffe):$")


def to_rst(lines: list[str]) -> list[str]:
    """Convert inline code and indented blocks, and escape characters that are markup in RST."""
    converted: list[str] = []
    in_literal = in_section = in_list = False
    for line in lines:
        indented = line.startswith(" ")
        if line and not indented:
            if in_literal:
                converted.append("")
            in_literal, in_section = False, bool(_SECTION.match(line))
            in_list = line.startswith("- ") or (in_list and converted[-1] != "")
            if line.startswith("- ") and converted and not converted[-1].startswith(("- ", "  ")):
                converted.append("")
        elif indented and not (in_literal or in_section or in_list):
            in_literal = True
            converted += ["", "::", ""]
        converted.append(line if in_literal else _inline(line))
    return converted


def _inline(line: str) -> str:
    pieces = _CODE.split(line)
    return "".join(f"`{p}`" if _CODE.fullmatch(p) else _escaped(p) for p in pieces)


def _escaped(text: str) -> str:
    """The text without meaning in RST: `*`, `|`, and `_` at the end of a word."""
    return re.sub(r"(?<!\\)([*|]|_(?!\w))", r"\\\1", text)
