"""A fresh session for every test, and a folder to work in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.logs.glog import close_logging
from runtime.pycaffe.session import SESSION, Session

Write = Callable[[str], str]


@pytest.fixture(autouse=True)
def session() -> Iterator[Session]:
    """The process's session and log, as they are when a process begins."""
    fresh = Session()
    for item in dataclasses.fields(Session):
        setattr(SESSION, item.name, getattr(fresh, item.name))
    yield SESSION
    close_logging()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write text into a file of the working folder; gives its name."""
    monkeypatch.chdir(tmp_path)
    names = iter(range(1000))

    def to_file(text: str) -> str:
        name = f"{next(names)}.prototxt"
        (tmp_path / name).write_text(text)
        return name

    return to_file
