"""Files that are read whole, and what is no such file."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from data_prep.image_file import MAX_PIXELS, read_image_file
from prototxt_gen.errors import DataError


def test_a_file_and_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0bytes")
    (tmp_path / "b").symlink_to("a")
    assert read_image_file(tmp_path / "a") == read_image_file(str(tmp_path / "b")) == b"\0bytes"
    odd = os.fsencode(tmp_path) + b"/\xff name"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    assert read_image_file(os.fsdecode(odd)) == b"x"


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("folder").mkdir()
    with Path("huge").open("wb") as stream:
        stream.truncate(8 * MAX_PIXELS + 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name, reason in {
        "none": "No such file or directory",
        "none/below": "No such file or directory",
        "huge/below": "Not a directory",
        "loop": "Too many levels of symbolic links",
        "n" * 300: "File name too long",
        "nul\0": "embedded null",
        "folder": "it is not a regular file",
        "fifo": "it is not a regular file",
        "socket": "it is not a regular file",
        "/dev/zero": "it is not a regular file",
        "huge": f"it has {8 * MAX_PIXELS + 1} bytes, more than {8 * MAX_PIXELS}",
    }.items():
        with pytest.raises(DataError, match=f"cannot be read: .*{reason}.*; expected an image"):
            read_image_file(name)
