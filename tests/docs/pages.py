"""The documentation as tests read it: pages, fenced blocks, inline commands, prose."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*|\{\w+\})\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"<!-- (skip|needs|file): (.*?) -->\n *$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment before it: `<!-- skip: reason -->`, `needs`, or `file`.

    `needs` names a module or an attribute, such as `onnx` or `runtime.load`; the block is run if it
    exists. `file` is the name under which the block is stored for the commands that follow.
    """

    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""
    follows_directly: bool = False
    """Only white space separates it from the block before it."""


def pages() -> list[Path]:
    """README and every written page of the site; the generated ones are left out."""
    written = (p for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts)
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(written)]


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    end = 0
    for match in _FENCE.finditer(text):
        if match["language"].startswith(
            "{"
        ):  # a directive of the site, such as a table of contents
            continue
        between = text[end : match.start()]
        mark = _MARK.search(between)
        yield Block(
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            text=re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE),
            mark=mark[1] if mark else "",
            value=mark[2] if mark else "",
            follows_directly=end > 0 and not between.strip(),
        )
        end = match.end()


def command_lines(text: str) -> list[str]:
    """The commands of a shell block, with continued lines joined and comments removed."""
    joined = text.replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def without_fences(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    """The inline code of a page."""
    return _INLINE.findall(without_fences(text))


def prose(text: str) -> str:
    """A page without code, comments and the targets of links."""
    text = re.sub(r"<!--.*?-->", "", without_fences(text), flags=re.DOTALL)
    text = _INLINE.sub("", text)
    return re.sub(r"\]\([^)]*\)", "]", text)
