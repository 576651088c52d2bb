"""The rows of a table measured on the runs of a folder; what is missing is said, not guessed."""

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
from runtime.paper.published import CENTRE, Row, TrainedNet, rows, scale_name
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting


@dataclass(frozen=True)
class Result:
    """A row of the paper with what was measured here, if its runs are there."""

    row: Row
    measured: Measured | None = None
    scales: str = ""
    """Training and test scales here, as the paper writes them."""
    missing: tuple[str, ...] = ()
    """A command for each run that is lacking."""

    def to_json(self) -> dict[str, Any]:
        """The row, the paper's figures and ours, in per cent."""
        found: dict[str, Any] = {
            "row": self.row.name,
            "kind": self.row.kind,
            "nets": [str(net) for net in self.row.nets],
            "scales_here": self.scales,
            "paper": {
                "top1": self.row.top1,
                "top5": self.row.top5,
                "test_top5": self.row.test_top5,
            },
            "measured": None,
            "missing": list(self.missing),
        }
        if self.measured is not None:
            found["measured"] = {
                "top1": 100 * self.measured.top1,
                "top5": 100 * self.measured.top5,
                "images": self.measured.images,
                "members": list(self.measured.members),
            }
        return found


class TableMaker:
    """Measures rows; the held-out images are opened when the first row can be measured."""

    def __init__(self, folder: RunFolder, setting: Setting, backend: Backend) -> None:
        self._folder = folder
        self._setting = setting
        self._backend = backend
        self._evaluator: Evaluator | None = None

    def table(self, number: int) -> list[Result]:
        """All rows of a table.

        Raises:
            VerydeepError: a run that is there cannot be evaluated.
        """
        return [self.result(row) for row in rows(number)]

    def result(self, row: Row) -> Result:
        """One row."""
        found = [(net, self._folder.finished(net.run)) for net in row.nets]
        missing = tuple(
            dict.fromkeys(
                _command(net, self._folder.root, self._setting) for net, run in found if run is None
            )
        )
        scales = " + ".join(str(self._here(net)) for net in row.nets)
        if missing or not found:
            return Result(row, None, scales, missing)
        members = [self._member(net, run, row.kind) for net, run in found if run is not None]
        return Result(row, self._measure(members), scales)

    def _measure(self, members: Sequence[Member]) -> Measured:
        if self._evaluator is None:
            cache = PosteriorCache(self._folder.posteriors)
            self._evaluator = Evaluator(self._folder.val, self._backend, cache)
        return self._evaluator.measure(members)

    def _here(self, net: TrainedNet) -> TrainedNet:
        train = self._setting.train_scale(net.train)
        return dataclasses.replace(net, train=train, test=self._tests(net))

    def _tests(self, net: TrainedNet) -> tuple[int, ...]:
        return tuple(self._setting.side(side) for side in net.test)

    def _member(self, net: TrainedNet, run: FinishedRun, kind: str) -> Member:
        tests = self._tests(net)
        if kind == CENTRE:
            protocol = centre_crop(tests)
        else:
            protocol = EvaluationProtocol(tests, kind, flip=default_flip(run.model))
        return Member(run.model, run.weights, protocol)


def _command(net: TrainedNet, root: Path, setting: Setting) -> str:
    """What trains a run that is missing."""
    return (
        f"verydeep recipe --net {net.net} --scales {scale_name(net.train)} --data {setting.data} "
        f"--out {root}"
    )
