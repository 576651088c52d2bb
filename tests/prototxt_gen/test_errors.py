"""Messages of errors: of bounded length, and without what a terminal would act on."""

from __future__ import annotations

import pickle

import pytest

from prototxt_gen.errors import ProtoError, StoppedError, VerydeepError, printable
from runtime.pycaffe.errors import MissingFileError

LONG = "x" * 300_000


@pytest.mark.parametrize("part", ["x", "a b ", "a\n", "a,b;", "\0", "\u4e2d"])
def test_a_name_of_any_length_leaves_a_message_that_can_be_read(part: str) -> None:
    name = part * 100_000
    error = ProtoError(f"net.prototxt:3:1: layer '{name}': unknown; got {name!r}; correct it")
    for text in (str(error), f"{error}", str(ProtoError(f"{error}; also {error}"))):
        assert len(text) < 50_000
        assert text.startswith("net.prototxt:3:1: layer '")
        assert text.endswith("correct it")


def test_one_long_word_is_cut_and_the_others_stay() -> None:
    assert str(VerydeepError(f"a {LONG} b")) == f"a {'x' * 220} ... {'x' * 75} b"
    words = " ".join(["x" * 300] * 6)
    assert str(VerydeepError(words)) == words
    assert str(VerydeepError("short")) == "short"


def test_a_long_table_keeps_its_lines() -> None:
    table = "\n".join(f"conv{n}: 64 x 3 x 3 x 3" for n in range(900))
    assert str(VerydeepError(table)) == table
    assert printable("\n".join("ab" for _ in range(5000)), None).count("\n") == 4999


def test_what_a_terminal_acts_on_is_shown_as_an_escape() -> None:
    error = VerydeepError("net '\x1b[2J\x07\x9b\r\x7f': wrong\n\tsecond line")
    assert str(error) == r"net '\x1b[2J\x07\x9b\x0d\x7f': wrong" + "\n\tsecond line"


def test_errors_keep_what_they_are() -> None:
    assert str(MissingFileError(f"{LONG}: missing")).endswith("x: missing")
    assert (ProtoError("x").status, StoppedError("x").status, StoppedError("x", 143).status) == (
        *(2, 2, 143),
    )
    copy = pickle.loads(pickle.dumps(ProtoError("message")))
    assert isinstance(copy, ProtoError) and str(copy) == "message"
