"""Files, JSON and numbers of any content."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen.reading import parse_integer, parse_json, read_bytes, read_json, short_repr


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        read_bytes(tmp_path / "file", 4)
    with pytest.raises(OSError, match="larger than the 3000000 bytes"):
        read_bytes("/dev/zero", 3_000_000)


def test_devices_pipes_and_folders(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="a device or a pipe"):
            read_bytes(path, regular=True)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"from a pipe"))
    writer.start()
    assert read_bytes(pipe) == b"from a pipe"
    writer.join()
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300])
def test_a_name_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no file can have this name|File name too long"):
        read_bytes(f"{tmp_path}/{name}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 100_000, "an integer of 100000 digits"),
        (f"[-{'9' * 19}]", "an integer of 20 digits"),
        ("", "Expecting value"),
        ('{"a": 1', "Expecting"),
    ],
    ids=lambda value: value[:8],
)
def test_json_without_end(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "file")


def test_json_is_read() -> None:
    text = '{"a": [1, -2, 1.5, null, true, 1e999], "b": 999999999999999999}'
    wanted = {"a": [1, -2, 1.5, None, True, float("inf")], "b": 10**18 - 1}
    assert parse_json(text) == wanted
    assert parse_json("\ufeff" + text.replace(", ", ",\r\n")) == wanted
    # Times in nanoseconds have 19 digits.
    assert parse_json(f"[{2**63 - 1}, {-(2**63)}]") == [2**63 - 1, -(2**63)]
    with pytest.raises(ValueError, match="at most 64 bits"):
        parse_json(str(2**63))


def test_integers_are_decimal_and_bounded() -> None:
    assert [parse_integer(text) for text in (" 7 ", "-12", "+5", "007")] == [7, -12, 5, 7]
    bad = ["", " ", "1.0", "1e3", "0x1", "1_000", "\u00b2", "\u0665", "9" * 19, "9" * 10**6, "--1"]
    assert [text for text in bad if parse_integer(text) is not None] == []


def _deep() -> Any:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("224", "'224'"),
        ([16, "x"], "[16, 'x']"),
        (10**100_000, "an integer of 332193 bits"),
        ([-(10**50)], "[an integer of 167 bits]"),
        ("x" * 300_000, "'" + "x" * 56 + "..."),
        (_deep(), "[[[[[...]]]]]"),
        (None, "None"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_shown(value: object, shown: str) -> None:
    assert short_repr(value) == shown
