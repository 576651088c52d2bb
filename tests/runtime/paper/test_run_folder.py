"""Damaged notes of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prototxt_gen.errors import SnapshotError, TrainingError
from runtime.paper.run_folder import RunFolder


def _finished(root: Path, **changes: object) -> RunFolder:
    folder = root / "runs" / "a"
    folder.mkdir(parents=True)
    note = {
        "finished": True, "made_of": {}, "weights": "w", "model": "m", "iterations": 5,
        "weights_sha256": "0",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(note | changes))
    (folder / "w").touch()
    return RunFolder(root)


def test_a_finished_run(tmp_path: Path) -> None:
    finished = _finished(tmp_path).finished("a")
    assert finished is not None
    assert finished.weights == tmp_path / "runs/a/w"


@pytest.mark.parametrize("name", ["gone", "x" * 300, "x" * 5000, "a\0b", "\ud800", "", ".."])
def test_weights_that_are_no_file(name: str, tmp_path: Path) -> None:
    folder = _finished(tmp_path, weights=name)
    with pytest.raises(SnapshotError, match="is missing; expected its last snapshot"):
        folder.finished("a")


@pytest.mark.parametrize("key", ["made_of", "weights", "model", "iterations", "weights_sha256"])
def test_notes_with_values_of_another_type(key: str, tmp_path: Path) -> None:
    folder = _finished(tmp_path, **{key: None})
    with pytest.raises(TrainingError, match=f"run.json: cannot be read: no '{key}' of type"):
        folder.finished("a")
