"""P_iter_N.state.json with valid and invalid content."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen.errors import SnapshotError
from runtime.solvers.best import BestScore
from runtime.solvers.resume_state import FileSum, ResumeState

BEST = {"name": "accuracy", "value": 0.5, "iteration": 4}


def _values() -> dict[str, Any]:
    state = ResumeState(6, 7, 2, 12, [3], None, BEST, files=[FileSum("a.caffemodel", 1, "0" * 64)])
    return json.loads(json.dumps(state, default=vars))


def _read(folder: Path, content: Any) -> ResumeState:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "x.state.json").write_text(text)
    return ResumeState.read(folder / "x.state.json")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = _read(tmp_path, _values())
    assert (state.iteration, state.shards, state.test_passes, state.best) == (6, 2, [3], BEST)
    assert state.fault(tmp_path) == f"{tmp_path}/a.caffemodel is missing"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, value) for key in ("iteration", "seed", "shards", "train_pass") for value in
          (None, -1, 1.5, "6", True, [6], 10**30, float("inf"))],
        ("shards", 0),
        *[("test_passes", value) for value in (None, 3, "12", [None], [-1], [1.5], {"a": 1})],
        *[("plateau", value) for value in (3, "x", [1])],
        *[("best", value) for value in (3, "x", [1])],
        ("precision", 32),
        *[("files", value) for value in (None, {}, "x", [3], [None], [{"name": "a"}])],
        ("unknown", 1),
        ("format", "1"),
    ],
)  # fmt: skip
def test_values_of_other_kinds_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"x\.state\.json: (damaged|unknown|cannot)") as caught:
        _read(tmp_path, {**_values(), key: value})
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("name", value) for value in (None, 3, "", ".", "..", "a/b", "/etc/passwd", "../x")],
        *[("bytes", value) for value in (None, -1, "1", 1.5)],
        *[("sha256", value) for value in (None, 3, [])],
        ("more", 1),
    ],
)
def test_files_of_other_kinds_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    values = _values()
    values["files"][0][key] = value
    with pytest.raises(SnapshotError, match="damaged"):
        _read(tmp_path, values)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format":' * 50_000, "9" * 100_000, "", "null", "[]", '"x"', "\ufeff{}"],
    ids=lambda value: value[:10],
)
def test_text_without_end(text: str, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"cannot be read|damaged|unknown format") as caught:
        _read(tmp_path, text)
    assert len(str(caught.value)) < 1000


def test_names_that_no_file_can_have_are_missing_files(tmp_path: Path) -> None:
    values = _values()
    for name in ("n" * 300, "a\0b", "\ud800"):
        values["files"][0]["name"] = name
        assert "is missing" in _read(tmp_path, values).fault(tmp_path)


def test_a_pipe_is_no_state(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.state.json")
    with pytest.raises(SnapshotError, match="a device or a pipe"):
        ResumeState.read(tmp_path / "x.state.json")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {**BEST, "name": 3},
        {**BEST, "value": "0.5"},
        {**BEST, "value": None},
        {**BEST, "iteration": 1.5},
        {**BEST, "iteration": True},
        "text",
        3,
    ],
)
def test_a_best_score_of_another_kind(values: Any) -> None:
    best = BestScore(None)
    with pytest.raises(SnapshotError, match="best: damaged; expected name, value and iteration"):
        best.from_json(values)
    assert (best.name, best.iteration) == ("", -1)
    best.from_json({**BEST, "value": float("nan")})  # ignored
    assert best.iteration == -1
    best.from_json(BEST)
    assert best.iteration == 4
