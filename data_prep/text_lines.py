"""Reading the lines of text files of users and other programs: lists and labels.

A byte order mark is skipped, and lines end in LF, CRLF or CR. Bytes that are not UTF-8 are kept
(`surrogateescape`), because file names are bytes and must open the same file.
"""

from __future__ import annotations

import codecs
import os
import re
import sys

from prototxt_gen.errors import DataError
from prototxt_gen.regular_file import RegularFile, StrPath

Line = tuple[int, str]
"""The number of a line, from 1, and its text without the white space at its end."""

MIN_INT32, MAX_INT32 = -(1 << 31), (1 << 31) - 1
"""The range of Caffe's labels."""
_BLANKS = " \t"
_OTHER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_LINE_END = re.compile(r"\r\n|\n|\r")
_MOST_DIGITS = 18
_INTEGER = re.compile(rf"[+-]?[0-9]{{1,{_MOST_DIGITS}}}")


def read_text(path: StrPath, what: str = "", pipe: bool = False) -> str:
    """The text of a file, without a byte order mark.

    `what` is the word for it in errors, such as "the labels". With `pipe` it may be a pipe, such as
    a shell's process substitution.

    Raises:
        DataError: the file cannot be read, is in UTF-16, or is binary.
    """
    data = RegularFile(path, what=what, pipe=pipe).read()
    if data.startswith(_HDF5):
        raise DataError(
            f"{path}: an HDF5 file; expected a text file that lists files; write this path into a "
            "text file, and name that"
        )
    if data.startswith(_OTHER_MARKS):
        raise DataError(
            f"{path}: not a text file in UTF-8; expected UTF-8, got UTF-16; save the file as UTF-8"
        )
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise DataError(f"{path}:{line}: a zero byte; expected a text file; check the path")
    return data.decode("utf-8", "surrogateescape")


def read_lines(
    path: StrPath, what: str = "", keep_empty: bool = False, pipe: bool = False
) -> list[Line]:
    """The lines of a text file with their numbers, without empty lines.

    With `keep_empty` only those at the end are omitted. See `read_text`.

    Raises:
        DataError: see `read_text`.
    """
    text = read_text(path, what, pipe)
    lines = _LINE_END.split(text) if "\r" in text else text.split("\n")
    stripped = [line.rstrip(" \t\f\v") for line in lines]
    while stripped and not stripped[-1]:
        stripped.pop()
    numbered = enumerate(stripped, 1)
    return list(numbered) if keep_empty else [line for line in numbered if line[1]]


def split_last(line: str) -> tuple[str, str]:
    """The text before the last space or tab, and the word after it."""
    before, _, word = line.rpartition(" ")
    if "\t" in word:
        before, _, word = line.rpartition("\t")
    return before.rstrip(_BLANKS), word


def split_first(line: str) -> tuple[str, str]:
    """The first word of a line, and the rest."""
    word, *rest = re.split(r"[ \t]+", line.strip(_BLANKS), maxsplit=1)
    return word, rest[0] if rest else ""


def integer(text: str, low: int, high: int) -> int | None:
    """Parse an integer from `low` to `high` in decimal ASCII digits; None for other texts."""
    # The first test covers the common case of the second faster.
    plain = len(text) < _MOST_DIGITS and text.isascii() and text.isdigit()
    if not plain and not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if low <= value <= high else None


def file_name(text: str) -> str:
    """A file name with the bytes of the text, in the form that system calls expect."""
    if sys.getfilesystemencoding() == "utf-8":
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))
