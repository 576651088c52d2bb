"""A folder of training runs, with a record of which runs are finished and how they were made.

setting.json            the data set of all runs
data/                   databases, mean pixel, colour components
runs/D-384/             nets, solver, snapshots, log and run.json of a run
posteriors/             cached posteriors of evaluations
tables/                 measured tables
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
    """A trained net; `note` is the content of its run.json."""

    name: str
    model: Path
    weights: Path
    note: dict[str, Any]

    def describe(self) -> str:
        """Return the name, the number of iterations and the file of weights."""
        return f"{self.name}: {self.note['iterations']} iterations, {self.weights}"


@dataclass(frozen=True)
class RunFolder:
    """See above. Only `begin` and `finish` write files."""

    root: Path

    @property
    def data(self) -> Path:
        """The folder of databases."""
        return self.root / "data"

    @property
    def val(self) -> Path:
        """The database of held-out images."""
        return self.data / "val_lmdb"

    @property
    def posteriors(self) -> Path:
        """The folder of cached posteriors."""
        return self.root / "posteriors"

    @property
    def tables(self) -> Path:
        """The folder of measured tables."""
        return self.root / "tables"

    def run(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.root / "runs" / name

    def finished(self, name: str) -> FinishedRun | None:
        """Return the net of a run, None if the run is not finished.

        Raises:
            SnapshotError: the file of weights is missing.
            TrainingError: run.json cannot be read.
        """
        note = self._note(name)
        if note is None or not note.get("finished"):
            return None
        return self._finished(name, note)

    def require(self, name: str, reason: str, advice: str) -> FinishedRun:
        """Return the net of a finished run.

        Raises:
            SnapshotError: the file of weights is missing.
            TrainingError: the run is not finished; the message has the reason and the advice.
        """
        run = self.finished(name)
        if run is None:
            raise TrainingError(
                f"{reason}, which is not finished in {self.root}; expected that run first; {advice}"
            )
        return run

    def begin(self, name: str, made_of: dict[str, Any]) -> None:
        """Record the settings of a new run, or check that an existing run has the same.

        Raises:
            TrainingError: the folder contains a run with other settings.
        """
        note = self._note(name)
        if note is None:
            self._write(name, {"finished": False, "made_of": made_of})
        elif note["made_of"] != made_of:
            differs = sorted(k for k in made_of if note["made_of"].get(k) != made_of[k])
            raise TrainingError(
                f"{self.run(name)}: contains a run with another {' and '.join(differs)}; expected "
                "the settings it was started with; delete that folder to train the run again, or "
                "choose another one with --out"
            )

    def finish(self, name: str, **values: Any) -> FinishedRun:
        """Record that a run is finished, with its results."""
        note = (self._note(name) or {}) | {"finished": True} | values
        self._write(name, note)
        return self._finished(name, note)

    def _finished(self, name: str, note: dict[str, Any]) -> FinishedRun:
        folder = self.run(name)
        weights = folder / note["weights"]
        if not is_file(weights):
            raise SnapshotError(
                f"{folder / RUN}: the run is finished, but {weights} is missing; expected its last "
                f"snapshot; restore the file, or delete {folder} to train the run again"
            )
        return FinishedRun(name, folder / note["model"], weights, note)

    def _note(self, name: str) -> dict[str, Any] | None:
        path = self.run(name) / RUN
        if not path.exists():
            return None
        try:
            note: dict[str, Any] = read_json(path)
            _check_note(note)
        except (OSError, ValueError) as cause:
            raise TrainingError(
                f"{path}: cannot be read: {cause}; expected a file that a recipe wrote; delete the "
                "folder to train that run again"
            ) from cause
        return note

    def _write(self, name: str, note: dict[str, Any]) -> None:
        atomic_write_text(self.run(name) / RUN, json.dumps(note, indent=2) + "\n", TrainingError)


def _check_note(note: Any) -> None:
    """Raise ValueError if a note lacks a value that is read from it."""
    kinds: dict[str, type] = {"made_of": dict}
    if isinstance(note, dict) and note.get("finished"):
        kinds |= {"weights": str, "model": str, "iterations": int, "weights_sha256": str}
    for key, kind in kinds.items():
        if not isinstance(note, dict) or not isinstance(note.get(key), kind):
            raise ValueError(f"no {key!r} of type {kind.__name__}")
