"""The report of a run as one HTML page and as Markdown, with the same content."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write, atomic_write_text

_STYLE = """
body { font-family: sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; display: block; }
figure { margin: 1rem 0; }
figcaption { color: #555; font-size: .9rem; }
pre { background: #f4f4f4; padding: 1rem; overflow-x: auto; }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Table:
    """A table; cells that are numbers are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]


@dataclass(frozen=True)
class Picture:
    """A PNG file in a page."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Code:
    """Commands."""

    text: str


Item = str | Table | Picture | Code
"""A paragraph, a table, a picture or code."""


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    items: Sequence[Item]


def write_html(title: str, sections: Sequence[Section], path: Path) -> None:
    """Write one file that loads nothing else.

    Raises:
        DataError: the file cannot be written.
    """
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [_html(item) for item in section.items]
    parts.append("</body></html>\n")
    atomic_write_text(path, "\n".join(parts), DataError)


def write_markdown(title: str, sections: Sequence[Section], path: Path) -> list[Path]:
    """Write Markdown, and its pictures into a folder next to it; returns all files.

    Raises:
        DataError: a file cannot be written.
    """
    folder = path.with_name(f"{path.stem}_files")
    files, lines = [path], [f"# {_plain(title)}", ""]
    for section in sections:
        lines += [f"## {_plain(section.title)}", ""]
        for item in section.items:
            if isinstance(item, Picture):
                target = folder / f"{item.name}.png"
                with atomic_write(target, "wb", DataError) as stream:
                    stream.write(item.png)
                files.append(target)
            lines += [*_markdown(item, folder.name), ""]
    atomic_write_text(path, "\n".join(lines).rstrip() + "\n", DataError)
    return files


def cell(value: str | float | int) -> str:
    """The text of a cell: numbers with four digits."""
    return value if isinstance(value, str) else f"{value:.4g}" if value % 1 else f"{value:.0f}"


def _html(item: Item) -> str:
    if isinstance(item, Table):
        head = "".join(f"<th>{html.escape(name)}</th>" for name in item.header)
        rows = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in item.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    if isinstance(item, Picture):
        data = base64.b64encode(item.png).decode()
        caption = html.escape(item.caption)
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    if isinstance(item, Code):
        return f"<pre><code>{html.escape(item.text)}</code></pre>"
    return f"<p>{html.escape(item)}</p>"


def _html_cell(value: str | float | int) -> str:
    kind = "" if isinstance(value, str) else ' class="number"'
    return f"<td{kind}>{html.escape(cell(value))}</td>"


def _markdown(item: Item, folder: str) -> Iterator[str]:
    if isinstance(item, Table):
        yield "| " + " | ".join(map(_plain, item.header)) + " |"
        yield "|" + "---|" * len(item.header)
        for row in item.rows:
            yield "| " + " | ".join(_plain(cell(value)) for value in row) + " |"
    elif isinstance(item, Picture):
        yield f"![{_plain(item.caption)}]({folder.replace(' ', '%20')}/{item.name}.png)"
    elif isinstance(item, Code):
        yield from ("```sh", *item.text.splitlines(), "```")
    else:
        yield _plain(item)


def _plain(text: str) -> str:
    """A text whose characters have no meaning in Markdown."""
    text = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in text)
