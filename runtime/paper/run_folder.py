"""A folder of training runs: which are finished, with what weights, made how.

setting.json            the data behind all runs
data/                   databases, mean, colour components
runs/D-384/             a run's nets, solver, snapshots, log and run.json
posteriors/             what evaluations keep
tables/                 reports
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen.destination import is_file
from prototxt_gen.errors import SnapshotError, TrainingError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json

RUN = "run.json"


@dataclass(frozen=True)
class FinishedRun:
    """A trained net."""

    name: str
    model: Path
    weights: Path
    note: dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """See above; nothing is written by looking."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def val(self) -> Path:
        """The held-out images."""
        return self.data / "val_lmdb"

    @property
    def posteriors(self) -> Path:
        return self.root / "posteriors"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    def run(self, name: str) -> Path:
        """The folder of a run."""
        return self.root / "runs" / name

    def finished(self, name: str) -> FinishedRun | None:
        """The net of a run, where it is finished.

        Raises:
            SnapshotError: its weights are gone.
            TrainingError: its note cannot be read.
        """
        note = self._note(name)
        if note is None or not note.get("finished"):
            return None
        return self._finished(name, note)

    def begin(self, name: str, made_of: dict[str, Any]) -> None:
        """Note that a run begins, or see that it goes on as it began.

        Raises:
            TrainingError: the folder holds a run of other settings.
        """
        note = self._note(name)
        if note is None:
            self._write(name, {"finished": False, "made_of": made_of})
        elif note["made_of"] != made_of:
            differs = sorted(k for k in made_of if note["made_of"].get(k) != made_of[k])
            raise TrainingError(
                f"{self.run(name)}: holds a run of another {' and '.join(differs)}; expected the "
                "settings it was begun with; delete that folder to train it again, or choose "
                "another one with --out"
            )

    def finish(self, name: str, **values: Any) -> FinishedRun:
        """Note that a run is finished."""
        note = (self._note(name) or {}) | {"finished": True} | values
        self._write(name, note)
        return self._finished(name, note)

    def _finished(self, name: str, note: dict[str, Any]) -> FinishedRun:
        folder = self.run(name)
        weights = folder / note["weights"]
        if not is_file(weights):
            raise SnapshotError(
                f"{folder / RUN}: the run is finished, but {weights} is missing; expected its last "
                f"snapshot; put it back, or delete {folder} to train again"
            )
        return FinishedRun(name, folder / note["model"], weights, note)

    def _note(self, name: str) -> dict[str, Any] | None:
        path = self.run(name) / RUN
        if not path.exists():
            return None
        try:
            note = read_json(path)
            _check_note(note)
        except (OSError, ValueError) as cause:
            raise TrainingError(
                f"{path}: cannot be read: {cause}; expected what a recipe wrote; delete the "
                "folder to train that run again"
            ) from cause
        found: dict[str, Any] = note
        return found

    def _write(self, name: str, note: dict[str, Any]) -> None:
        atomic_write_text(self.run(name) / RUN, json.dumps(note, indent=2) + "\n", TrainingError)


def _check_note(note: Any) -> None:
    """Raise ValueError where a note lacks what is read from it."""
    kinds: dict[str, type] = {"made_of": dict}
    if isinstance(note, dict) and note.get("finished"):
        kinds |= {"weights": str, "model": str, "iterations": int, "weights_sha256": str}
    for key, kind in kinds.items():
        if not isinstance(note, dict) or not isinstance(note.get(key), kind):
            raise ValueError(f"no {key!r} of type {kind.__name__}")
