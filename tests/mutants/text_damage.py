"""Damage to text: numbers, strings and words in wrong places, nesting, encodings."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from tests.mutants.case import Mutate
from tests.mutants.damage import damage

_TOKEN = re.compile(rb"\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|[-+.\w]+|\s+|.", re.S)
NUMBERS = (
    b"0", b"-0", b"1", b"2", b"3", b"7", b"64", b"-1", b"-2", b"0.5", b"1e-46", b"1e9", b"1e38",
    b"3.5e38", b"1e309", b"-1e400", b"1e999999999", b"1e-999999999", b"2147483647", b"2147483648",
    b"-2147483649", b"4294967295", b"4294967296", b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"nan", b"inf", b"-inf", b"0x7fffffff", b"1_000", b"1/0", b"1/3",
    b"1.", b".5", b"1e", b"+5", b"007", b"\xd9\xa1", b"\xc2\xb2", b"9" * 400, b"9" * 5000,
)  # fmt: skip
STRINGS = (
    b"", b" ", b".", b"..", b"a/b", b"../x", b"a//b", b"x" * 300, b"x" * 5000, b"\xc3\xa9", b"%s%n",
    b"{}", b"nan", b"true", b"\\000", b"\\377", b"\\n", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"#",
    b"/dev/zero", b"\\u0000", b"\\ud800", b"\x1b[2J",
)  # fmt: skip
_SMALL = (b"0", b"1", b"2", b"3", b"4", b"5", b"8", b"16", b"-1", b"0.5", b"1e-3")
_RARE = (b"9" * 100_000, b"1" + b"0" * 50_000 + b".5", b"x" * 70_000)
_RARE_CHANCE = 0.003
_OPENERS = (b"{", b"[", b"(", b"<", b"{ a: ", b'{"a":', b"[{", b"<a>", b"a.", b"a {")


def _other_token(
    rng: random.Random, old: bytes, tokens: list[bytes], vocabulary: Sequence[bytes]
) -> bytes:
    """A replacement of a token; two thirds are of the same kind, so that the text still parses."""
    kind = rng.random()
    if kind < _RARE_CHANCE:
        return rng.choice(_RARE)
    if kind < 0.67:
        alike = [token for token in (*tokens, *vocabulary) if _kind(token) == _kind(old)]
        if _kind(old) == "number":
            alike = [*_SMALL] if rng.random() < 0.5 else [*NUMBERS]
        if _kind(old) == "string" and rng.random() < 0.5:
            return old[:1] + rng.choice(STRINGS) + old[:1]
        return rng.choice(alike or tokens)
    if kind < 0.77:
        return rng.choice(NUMBERS)
    if kind < 0.85:
        quote = rng.choice((b'"', b'"', b"'", b""))
        return quote + rng.choice(STRINGS) + quote
    return rng.choice(vocabulary or tokens)


def _kind(token: bytes) -> str:
    if token[:1] in (b'"', b"'"):
        return "string"
    if token[:1].isdigit() or token[:1] in (b"-", b"+", b"."):
        return "number"
    return "word" if token[:1].isalpha() else "other"


def _change_token(rng: random.Random, text: bytes, vocabulary: Sequence[bytes]) -> bytes:
    tokens = _TOKEN.findall(text)
    values = [place for place, token in enumerate(tokens) if _kind(token) != "other"]
    words = [place for place, token in enumerate(tokens) if not token.isspace()]
    if not words:
        return text
    place = rng.choice(values if values and rng.random() < 0.85 else words)
    kind = rng.randrange(16)
    if kind == 0:
        del tokens[place]
    elif kind == 1:
        other = _other_token(rng, tokens[place], tokens, vocabulary)
        tokens.insert(place, b" " + other + b" ")
    elif kind == 2:
        tokens[place] *= 2
    elif kind == 3:
        other_place = rng.choice(words)
        tokens[place], tokens[other_place] = tokens[other_place], tokens[place]
    elif kind < 6 and vocabulary:
        # Between two pairs of a key and a value, where another pair is possible.
        tokens.insert(rng.choice(words), b" " + rng.choice(vocabulary) + b" ")
    else:
        tokens[place] = _other_token(rng, tokens[place], tokens, vocabulary)
    return b"".join(tokens)


def _change_line(rng: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    lines = text.splitlines(keepends=True) or [b""]
    start = rng.randrange(len(lines))
    block = lines[start : start + rng.choice((1, 1, 2, 5))]
    kind = rng.randrange(4)
    if kind == 0:
        del lines[start : start + len(block)]
    elif kind == 1:
        lines[start:start] = block * rng.choice((1, 1, 2, 40))
    elif kind == 2:
        target = rng.randrange(len(lines) + 1)
        lines[target:target] = block
    else:
        rng.shuffle(lines)
    return b"".join(lines)


def _nest(rng: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    start = rng.randrange(len(text) + 1)
    return text[:start] + rng.choice(_OPENERS) * rng.choice((1, 3, 30, 300, 5000)) + text[start:]


def _encode(rng: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    kind = rng.randrange(7)
    if kind == 0:
        return b"\xef\xbb\xbf" + text
    if kind == 1:
        return text.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\x0b", b"\xe2\x80\xa8")))
    if kind == 2:
        return text.replace(b" ", rng.choice((b"\t", b"\xc2\xa0", b"", b"  ")))
    if kind == 3:
        return text.decode(errors="replace").encode(rng.choice(("utf-16", "utf-16-be", "utf-32")))
    start = rng.randrange(len(text) + 1)
    odd = rng.choice(
        (b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x1b[0m", b"\xe2\x80\xae", b"\x1a")
    )
    return text[:start] + odd + text[start:]


def _empty(rng: random.Random, text: bytes, _: Sequence[bytes]) -> bytes:
    return rng.choice((b"", b"\n", b" ", b"\0", b"#", text[: len(text) // 2]))


Step = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
_STEPS: tuple[Step, ...] = (*[_change_token] * 20, _change_line, _change_line, _nest, _encode)


def text_damage(vocabulary: Sequence[bytes] = ()) -> Mutate:
    """Damage for text of a format with this vocabulary."""

    def mutate(rng: random.Random, sample: bytes, others: Sequence[bytes]) -> bytes:
        if rng.random() < 0.1:
            return damage(rng, sample, others)
        if rng.random() < 0.002:
            return _empty(rng, sample, vocabulary)
        text = sample
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            text = rng.choice(_STEPS)(rng, text, vocabulary)
        return text

    return mutate
