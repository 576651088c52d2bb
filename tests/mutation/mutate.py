"""Damaged variants of a file: bits, spans and words changed, numbers and nesting without end."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_WORD = re.compile(rb"[A-Za-z_]\w*|[-+]?[0-9][0-9.eE+-]*|[^\s\w]")
_NUMBER = re.compile(rb"[-+]?[0-9][0-9.eE+-]*")

NUMBERS = (
    b"0 -0 -1 1 2 255 256 65536 2147483647 2147483648 -2147483649 4294967295 4294967296"
    b" 9223372036854775807 9223372036854775808 18446744073709551616 1e308 1e999 -1e999"
    b" 1e999999999 1e-999999999 nan inf -inf NaN Infinity 0x7fffffff 0xffffffffffffffffff 1/0"
    b" 0.1 1e-320 00012 1_000 1e400"
).split()
WORDS = (
    b"",
    b"\x00",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    "\N{SUPERSCRIPT TWO}".encode(),
    "\N{ARABIC-INDIC DIGIT FIVE}".encode(),
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\t",
    b"\x1b[2J",
    b"\\u0000",
    b"\\ud800",
    b'"',
    b"'",
    b"{",
    b"}",
    b"[",
    b"]",
    b"<",
    b">",
    b"=",
    b":",
    b",",
    b"#",
    b"null",
    b"true",
    b"..",
    b"/",
    b"/dev/zero",
    b"%s%n",
)


def mutant(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the files with one to four changes."""
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3))):
        change = rng.choices((_bits, _span, _word, _number, _splice, _endless), (3, 3, 5, 5, 2, 1))[
            0
        ]
        data = change(data, seeds, rng)
    return data


def _place(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.expovariate(0.1)) + 1)


def _bits(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data or b"\x00")
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _span(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Cut the file, or remove or repeat a part of it."""
    start, stop = _place(data, rng)
    kind = rng.randrange(4)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[:start] + data[stop:]
    times = rng.choice((1, 1, 2, 50))
    return data[:stop] + data[start:stop] * times + data[stop:]


def _word(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Put a word in the place of another, or beside it."""
    found = list(_WORD.finditer(data))
    word = rng.choice(WORDS) if rng.random() < 0.5 or not found else rng.choice(found)[0]
    if not found:
        return word + data
    at = rng.choice(found)
    return data[: at.start() if rng.random() < 0.6 else at.end()] + word + data[at.end() :]


def _number(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data))
    number = rng.choice(NUMBERS)
    if rng.random() < 0.1:
        number = rng.choice((b"9", b"1.", b"0x1", b"-1e")) + b"7" * rng.choice(
            (20, 400, 5000, 10**5)
        )
    if not found:
        start, _ = _place(data, rng)
        return data[:start] + number + data[start:]
    at = rng.choice(found)
    return data[: at.start()] + number + data[at.end() :]


def _splice(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Put a part of a file into another."""
    other = rng.choice(seeds)
    (start, stop), (from_, to) = _place(data, rng), _place(other, rng)
    return data[:start] + other[from_ : max(to, rng.randrange(len(other) + 1))] + data[stop:]


def _endless(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Nest something deeply, or make a word long."""
    start, stop = _place(data, rng)
    part = rng.choice(
        (b"[", b"{", b"(", b"<a>", b"a.", b'{"a":', b"a{", b"x", b"- ", b"\\", b'"', b" ")
    )
    return data[:start] + part * rng.choice((100, 1500, 10**5)) + data[stop:]
