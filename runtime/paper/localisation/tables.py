"""Tables 8 and 9 measured on the runs of a folder; what is missing is said, not guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.backend.base import Backend
from runtime.paper.localisation.baselines import centre_boxes, random_boxes, training_boxes
from runtime.paper.localisation.evaluation import CROPS, DENSE, BoxEvaluator, BoxMember, Localised
from runtime.paper.localisation.prediction import Labels
from runtime.paper.localisation.prepare import find_boxes
from runtime.paper.localisation.published import TITLES, BoxRow, BoxRun, rows
from runtime.paper.localisation.training import CLASSIFIER, finished, started_from
from runtime.paper.localisation.truth import Truth
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import Setting

CENTRAL = "central crop"


@dataclass(frozen=True)
class BoxResult:
    """A row of the paper with what was measured here, by way of applying the net."""

    row: BoxRow
    scales: str
    measured: dict[str, Localised] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """A command for each run that is lacking."""

    def to_json(self) -> dict[str, Any]:
        """The row, the paper's figures and ours, in per cent."""
        return {
            "row": self.row.name,
            "runs": [run.name for run, _ in self.row.members],
            "scales_here": self.scales,
            "paper": {"val": self.row.val, "test": self.row.test},
            "measured": {way: found.to_json() for way, found in self.measured.items()},
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class BoxTable:
    """A table's rows and the baselines' errors (fractions) by the same protocol."""

    number: int
    results: tuple[BoxResult, ...]
    baselines: dict[str, float]
    images: int
    classes: str
    """How the classes were come by."""

    def to_json(self) -> dict[str, Any]:
        """The table for a program; errors in per cent."""
        return {
            "table": self.number,
            "title": TITLES[self.number],
            "units": "per cent",
            "images": self.images,
            "classes": self.classes,
            "baselines": {name: 100 * error for name, error in self.baselines.items()},
            "rows": [result.to_json() for result in self.results],
        }

    def best(self) -> tuple[str, Localised] | None:
        """The row of least error and what it is called, if any was measured."""
        found = [
            (f"{result.row.name}, {way}", each)
            for result in self.results
            for way, each in result.measured.items()
        ]
        return min(found, key=lambda pair: pair[1].error, default=None)


class BoxTables:
    """Measures the tables of a folder's runs of one net."""

    def __init__(
        self, folder: RunFolder, setting: Setting, net: str, truth: Truth, backend: Backend
    ) -> None:
        self._folder, self._setting, self._net = folder, setting, net
        self._evaluator = BoxEvaluator(truth, backend)

    def table(self, number: int) -> BoxTable:
        """A whole table.

        Raises:
            VerydeepError: a run that is there cannot be evaluated.
        """
        chosen = rows(number, self._net)
        system = self._system() if number == 9 else []
        classes = self._evaluator.top_classes(system) if system else None
        results = tuple(self._result(row, classes) for row in chosen)
        words = "the true one"
        if number == 9:
            nets = (f"{m.classifier_weights.name} at {_shown(m.scales)}" for m in system)
            words = f"the 5 likeliest by dense posteriors of {', '.join(nets) or 'no net'}"
        measured = any(result.measured for result in results)
        return BoxTable(
            number,
            results,
            self._baselines(classes) if measured else {},
            len(self._evaluator.truth.labels),
            words,
        )

    def _result(self, row: BoxRow, classes: Labels | None) -> BoxResult:
        missing = [run for run, _ in row.members if self._folder.finished(run.name) is None]
        scales = " + ".join(
            f"{self._setting.side(run.scale)}/{_shown(self._tests(tests))}"
            for run, tests in row.members
        )
        if missing:
            return BoxResult(row, scales, {}, tuple(self._command(run) for run in missing))
        members = [self._member(run, tests) for run, tests in row.members]
        if row.table == 8 or classes is None:
            return BoxResult(row, scales, {CENTRAL: self._evaluator.central(members[0])})
        ways = {way: self._evaluator.merged(members, classes, way) for way in (DENSE, CROPS)}
        return BoxResult(row, scales, ways)

    def _system(self) -> list[BoxMember]:
        """The classification nets of the row that fuses all, as far as they are there."""
        fusion = rows(9, self._net)[-1]
        return [
            self._member(run, tests)
            for run, tests in fusion.members
            if self._folder.finished(run.name) is not None
        ]

    def _member(self, run: BoxRun, tests: tuple[int, ...]) -> BoxMember:
        found = finished(self._folder, run)
        return BoxMember(
            found.model,
            found.weights,
            self._folder.run(run.name) / CLASSIFIER,
            started_from(self._folder, run),
            self._tests(tests),
        )

    def _tests(self, tests: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self._setting.side(side) for side in tests)

    def _baselines(self, classes: Labels | None) -> dict[str, float]:
        trained = training_boxes(*find_boxes(self._folder.data))
        truth = self._evaluator.truth
        return {
            "centre box": self._evaluator.fixed(centre_boxes(truth, trained), classes),
            "random box": self._evaluator.fixed(random_boxes(truth, trained), classes),
        }

    def _command(self, run: BoxRun) -> str:
        return (
            f"verydeep localise train --net {run.net} --scale {run.scale} --regression "
            f"{run.regression} --fine-tune {run.fine_tune} --data {self._setting.data} "
            f"--out {self._folder.root}"
        )


def text_table(table: BoxTable, notes: Sequence[str] = ()) -> str:
    """A table as a person reads it: errors in per cent, baselines, and what all depends on."""
    ways = tuple(dict.fromkeys(way for result in table.results for way in result.measured))
    head = ["setting", "paper val", "test", *(f"here, {way}" for way in ways), "S/Q here"]
    body = [
        [
            result.row.name,
            _percent(result.row.val),
            _percent(result.row.test),
            *(_percent(_error(result, way)) for way in ways),
            result.scales if result.measured else f"{result.scales}, missing",
        ]
        for result in table.results
    ]
    body += [
        [name, "-", "-", *(_percent(100 * error) for _ in ways), ""]
        for name, error in table.baselines.items()
    ]
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    lines = [f"Table {table.number}: {TITLES[table.number]}; errors in per cent", ""]
    lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *body)]
    lines.insert(3, "-" * (sum(widths) + 2 * len(widths) - 2))
    lines += ["", f"images: {table.images}; classes: {table.classes}", *notes]
    commands = dict.fromkeys(each for result in table.results for each in result.missing)
    if commands:
        lines += ["", "Missing runs; each of these trains one, with all it starts from:"]
        lines += [f"  {command}" for command in commands]
    found = [each for result in table.results for each in result.measured.values()]
    members = {
        f"  {member['net']}: weights sha256 {member['weights_sha256'][:16]}, started from "
        f"{member['classifier_sha256'][:16]}"
        for each in found
        for member in each.members
    }
    if found:
        lines += ["", "Measured with:", *sorted(members), "", "Protocols:"]
        lines += [f"  {words}" for words in dict.fromkeys(each.protocol for each in found)]
    return "\n".join(lines)


def _error(result: BoxResult, way: str) -> float | None:
    found = result.measured.get(way)
    return None if found is None else 100 * found.error


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _shown(scales: Sequence[int]) -> str:
    return ",".join(map(str, scales))
