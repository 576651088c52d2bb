"""The rows of Tables 3 to 7, measured on the runs of a folder. Missing runs are reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.backend.base import Backend
from runtime.evaluate.cache import PosteriorCache
from runtime.evaluate.evaluation import Evaluator, Measured, Member
from runtime.evaluate.flips import default_flip
from runtime.evaluate.protocol import EvaluationProtocol, centre_crop
from runtime.paper.classification.published import CENTRE, Row, TestedNet, rows
from runtime.paper.recipe import scale_name
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting


@dataclass(frozen=True)
class Result:
    """A row of the paper with the measured errors, if its runs are finished."""

    row: Row
    measured: Measured | None = None
    scales: str = ""
    """The training and test scales that were used, in the paper's notation."""
    missing: tuple[str, ...] = ()
    """A command for each missing run."""

    def to_json(self) -> dict[str, Any]:
        """Return the row with published and measured numbers. Units: per cent."""
        measured: dict[str, Any] | None = None
        if self.measured is not None:
            measured = {
                "top1": 100 * self.measured.top1,
                "top5": 100 * self.measured.top5,
                "images": self.measured.images,
                "members": list(self.measured.members),
            }
        return {
            "row": self.row.name,
            "kind": self.row.kind,
            "nets": [str(net) for net in self.row.nets],
            "scales_here": self.scales,
            "paper": self.row.published,
            "measured": measured,
            "missing": list(self.missing),
        }


class TableMaker:
    """Measures rows. The held-out images are opened when the first row is measured."""

    def __init__(self, folder: RunFolder, setting: Setting, backend: Backend) -> None:
        self._folder = folder
        self._setting = setting
        self._backend = backend
        self._evaluator: Evaluator | None = None

    def table(self, number: int) -> list[Result]:
        """Measure all rows of a table.

        Raises:
            VerydeepError: a finished run cannot be evaluated.
        """
        return [self.result(row) for row in rows(number)]

    def result(self, row: Row) -> Result:
        """Measure one row.

        Raises:
            VerydeepError: a finished run cannot be evaluated.
        """
        runs = [(net, self._folder.finished(net.run)) for net in row.nets]
        missing = tuple(
            dict.fromkeys(
                _command(net, self._folder.root, self._setting) for net, run in runs if run is None
            )
        )
        scales = " + ".join(str(self._with_sides(net)) for net in row.nets)
        if missing or not runs:
            return Result(row, None, scales, missing)
        members = [self._member(net, run, row.kind) for net, run in runs if run is not None]
        return Result(row, self._measure(members), scales)

    def _measure(self, members: Sequence[Member]) -> Measured:
        if self._evaluator is None:
            cache = PosteriorCache(self._folder.posteriors)
            self._evaluator = Evaluator(self._folder.val, self._backend, cache)
        return self._evaluator.measure(members)

    def _with_sides(self, net: TestedNet) -> TestedNet:
        train = self._setting.train_scale(net.train)
        return dataclasses.replace(net, train=train, test=self._setting.sides(net.test))

    def _member(self, net: TestedNet, run: FinishedRun, kind: str) -> Member:
        scales = self._setting.sides(net.test)
        if kind == CENTRE:
            protocol = centre_crop(scales)
        else:
            protocol = EvaluationProtocol(scales, kind, flip=default_flip(run.model))
        return Member(run.model, run.weights, protocol)


def _command(net: TestedNet, root: Path, setting: Setting) -> str:
    """Return the command that trains a run."""
    return (
        f"verydeep recipe --net {net.net} --scales {scale_name(net.train)} --data {setting.data} "
        f"--out {root}"
    )
