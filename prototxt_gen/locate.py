"""Lines of layers and fields in a prototxt, for errors that are detected after parsing."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from prototxt_gen.errors import VerydeepError

_LAYER = re.compile(r"layer '([^']+)'")
_TOKEN = re.compile(r"""#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|[{}<>]|\w+|\n""")


@contextlib.contextmanager
def located(path: str | os.PathLike[str]) -> Iterator[None]:
    """Prefix errors about a layer of this file with `file:line:column`.

    Errors about no layer of the file are prefixed with the file alone, unless they begin with it.

    Raises:
        VerydeepError: of the same type as the error of the block.
    """
    try:
        yield
    except VerydeepError as error:
        message = str(error)
        if message.startswith(f"{path}:"):
            raise
        name = _LAYER.search(message)
        place = layer_place(_text(path), name[1]) if name else None
        label = f"{path}:{place[0]}:{place[1]}" if place else f"{path}"
        raise type(error)(f"{label}: {message}") from error


def layer_place(text: str, layer: str) -> tuple[int, int] | None:
    """Line and column of the name of a layer, counted from 1, or None if there is none.

    Only names at the depth of a layer's fields count, not the name of the net or of weights.
    """
    depth, line, start = 0, 1, 0
    field = ""
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == "\n":
            line, start = line + 1, token.end()
        elif word in "{<":
            depth += 1
        elif word in "}>":
            depth -= 1
        elif word[0] in "\"'":
            if depth == 1 and field == "name" and word[1:-1] == layer:
                return line, token.start() - start + 1
        elif word[0] != "#":
            field = word
    return None


def field_line(text: str, field: str) -> int | None:
    """The line of a field of the outermost message, counted from 1, or None."""
    depth, line = 0, 1
    for token in _TOKEN.finditer(text):
        word = token[0]
        if word == "\n":
            line += 1
        elif word in "{<":
            depth += 1
        elif word in "}>":
            depth -= 1
        elif word == field and not depth:
            return line
    return None


def _text(path: str | os.PathLike[str]) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
