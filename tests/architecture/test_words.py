"""Comments, docstrings, messages and the names of tests are in plain technical English."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.mannerisms import mannerisms, source_files, texts_of

ROOT = Path(__file__).resolve().parents[2]
PERMITTED = {
    "tests/docs/test_words.py": "an example of the words",
    "tests/architecture/test_words.py": "an example of the words",
}
"""Files that need the words, with the reason."""


def found_in(path: Path) -> list[str]:
    return [f"line {line}: {word}" for line, text in texts_of(path) for word in mannerisms(text)]


def test_no_mannerisms_in_the_sources() -> None:
    assert {
        file: words
        for path in source_files(ROOT)
        if (file := path.relative_to(ROOT).as_posix()) not in PERMITTED
        and (words := found_in(path))
    } == {}


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.py", "# It says so.\n", [1]),
        ("a.py", 'def f():\n    """Tells apart."""\n', [2]),
        ("a.py", 'raise E(f"{x}: nobody reads {y}")\n', [1]),
        ("a.py", "def test_what_the_file_says(): ...\n", [1]),
        ("a.py", "def on_end(said): ...\nsay = 'says'\n", []),
        ("a.py", '"""Keeps the memory alive; a stand-in for nvcc."""\n', []),
        ("a.cu", "// beside it\nint said;\n/* as it\n   stands */\n", [1, 3]),
        ("a.cpp", 'error("nobody");\n', [1]),
    ],
)
def test_mannerisms_are_found_in_texts_only(
    name: str, text: str, lines: list[int], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert [line for line, text in texts_of(path) if mannerisms(text)] == lines
