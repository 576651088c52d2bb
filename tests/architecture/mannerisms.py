"""Words and phrases that plain technical English does without, and the texts that are checked."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

MANNERISMS = re.compile(
    r"\b("
    r"says?|said|saying|tells?|told|telling|stands?|stood|standing|beside|besides|anew|"
    r"nobody|somebody|whoever|whatever|at hand|alive|held against|hold against|be had|"
    r"nothing but|in passing|on end|leans?|leant|goes on|go on|went on|gone on|wants|knows|"
    r"the house|never shows|owes?|owed|taught|the way of|"
    r"long since|looks at|looked at|looks into|old files|up to date"
    r")\b",
    re.IGNORECASE,
)
TECHNICAL = re.compile(
    r"\bkeeps? \w+(?: \w+){0,2} alive\b"  # the lifetime of an object
    r"|\bstand-ins?\b|\bstands in\b",  # a substitute in tests
    re.IGNORECASE,
)
"""Terms of the field that contain one of the words."""

FOLDERS = ("prototxt_gen", "cuda_kernels", "data_prep", "runtime", "benchmarks", "docs", "tests")
SUFFIXES = (".py", ".cu", ".cuh", ".cpp", ".h", ".proto")
_C_TEXT = re.compile(r"//([^\n]*)|/\*(.*?)\*/|\"((?:[^\"\\\n]|\\.)*)\"", re.DOTALL)


def mannerisms(text: str) -> list[str]:
    """The mannerisms in a text."""
    return [match[0] for match in MANNERISMS.finditer(TECHNICAL.sub("", text))]


def source_files(root: Path) -> list[Path]:
    """The source files that are checked; this file, which lists the words, is not."""
    files = (path for folder in FOLDERS for path in sorted((root / folder).rglob("*")))
    return [path for path in files if path.suffix in SUFFIXES and path.name != Path(__file__).name]


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines and texts of a source file that people read.

    These are comments, docstrings, strings of several words, and the names of tests as words.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python_texts(source)
        return
    for match in _C_TEXT.finditer(source):
        yield source.count("\n", 0, match.start()) + 1, next(filter(None, match.groups()), "")


def _python_texts(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
