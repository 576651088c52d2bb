"""Tables 8 and 9, measured on the runs of a folder. Missing runs are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.backend.base import Backend
from runtime.paper import report
from runtime.paper.localisation.baselines import centre_boxes, random_boxes, training_boxes
from runtime.paper.localisation.evaluation import CROPS, DENSE, BoxEvaluator, BoxMember, Localised
from runtime.paper.localisation.prediction import Labels
from runtime.paper.localisation.prepare import find_boxes
from runtime.paper.localisation.published import BoxRow, BoxRun, rows
from runtime.paper.localisation.training import CLASSIFIER, initial_weights
from runtime.paper.localisation.truth import Truth
from runtime.paper.published import TITLES
from runtime.paper.report import missing_lines, percent
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting

CENTRAL = "central crop"


@dataclass(frozen=True)
class BoxResult:
    """A row of the paper with the measured errors, by the method of applying the nets."""

    row: BoxRow
    scales: str
    """The training and test scales that were used, in the paper's notation."""
    measured: dict[str, Localised] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    """A command for each missing run."""

    def to_json(self) -> dict[str, Any]:
        """Return the row with published and measured numbers. Units: per cent."""
        return {
            "row": self.row.name,
            "runs": [run.name for run, _ in self.row.members],
            "scales_here": self.scales,
            "paper": self.row.published,
            "measured": {method: result.to_json() for method, result in self.measured.items()},
            "missing": list(self.missing),
        }


@dataclass(frozen=True)
class BoxTable:
    """A table's rows, and the errors of the baselines by the same protocol, as fractions."""

    number: int
    results: tuple[BoxResult, ...]
    baselines: dict[str, float]
    images: int
    classes: str
    """The source of the classes, in words."""

    def to_json(self) -> dict[str, Any]:
        """Return the table as a JSON object. Units: errors in per cent."""
        return report.table_json(
            self.number,
            (result.to_json() for result in self.results),
            images=self.images,
            classes=self.classes,
            baselines={name: 100 * error for name, error in self.baselines.items()},
        )

    def best(self) -> tuple[str, Localised] | None:
        """Return the measured row with the smallest error and its name; None without any."""
        measured = [
            (f"{result.row.name}, {method}", localised)
            for result in self.results
            for method, localised in result.measured.items()
        ]
        return min(measured, key=lambda pair: pair[1].error, default=None)


class BoxTables:
    """Measures the tables for the runs of one net in a folder."""

    def __init__(
        self, folder: RunFolder, setting: Setting, net: str, truth: Truth, backend: Backend
    ) -> None:
        self._folder, self._setting, self._net = folder, setting, net
        self._evaluator = BoxEvaluator(truth, backend)

    def table(self, number: int) -> BoxTable:
        """Measure a table.

        Raises:
            VerydeepError: a finished run cannot be evaluated.
        """
        fusion = self._finished_members(rows(9, self._net)[-1]) if number == 9 else []
        classes = self._evaluator.top_classes(fusion) if fusion else None
        results = tuple(self._result(row, classes) for row in rows(number, self._net))
        words = "the true one"
        if number == 9:
            nets = (f"{m.classifier_weights.name} at {_listed(m.scales)}" for m in fusion)
            words = f"the 5 most likely by dense posteriors of {', '.join(nets) or 'no net'}"
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
            f"{self._setting.side(run.scale)}/{_listed(self._setting.sides(tests))}"
            for run, tests in row.members
        )
        if missing:
            return BoxResult(row, scales, {}, tuple(self._command(run) for run in missing))
        members = self._finished_members(row)
        if row.table == 8 or classes is None:
            return BoxResult(row, scales, {CENTRAL: self._evaluator.central(members[0])})
        methods = {
            method: self._evaluator.merged(members, classes, method) for method in (DENSE, CROPS)
        }
        return BoxResult(row, scales, methods)

    def _finished_members(self, row: BoxRow) -> list[BoxMember]:
        """Return the members of a row whose runs are finished."""
        runs = [(self._folder.finished(run.name), tests) for run, tests in row.members]
        return [self._member(run, tests) for run, tests in runs if run is not None]

    def _member(self, run: FinishedRun, tests: tuple[int, ...]) -> BoxMember:
        return BoxMember(
            run.model,
            run.weights,
            run.model.with_name(CLASSIFIER),
            initial_weights(run),
            self._setting.sides(tests),
        )

    def _baselines(self, classes: Labels | None) -> dict[str, float]:
        trained = training_boxes(*find_boxes(self._folder.data))
        evaluator = self._evaluator
        truth = evaluator.truth
        return {
            "centre box": evaluator.error_of_fixed(centre_boxes(truth, trained), classes),
            "random box": evaluator.error_of_fixed(random_boxes(truth, trained), classes),
        }

    def _command(self, run: BoxRun) -> str:
        return (
            f"verydeep localise train --net {run.net} --scale {run.scale} --regression "
            f"{run.regression} --fine-tune {run.fine_tune} --data {self._setting.data} "
            f"--out {self._folder.root}"
        )


def text_table(table: BoxTable, notes: Sequence[str] = ()) -> str:
    """Return a table as text: errors in per cent, baselines, and what the errors depend on."""
    methods = tuple(dict.fromkeys(method for result in table.results for method in result.measured))
    head = ("setting", "paper val", "test", *(f"here, {method}" for method in methods), "S/Q here")
    body = [_cells(result, methods) for result in table.results]
    body += [
        [name, percent(None), percent(None), *(percent(100 * error) for _ in methods), ""]
        for name, error in table.baselines.items()
    ]
    title = f"{TITLES[table.number]}; errors in per cent"
    lines = report.text_table(table.number, head, body, title)
    lines += ["", f"images: {table.images}; classes: {table.classes}", *notes]
    lines += missing_lines(command for result in table.results for command in result.missing)
    return "\n".join(lines + _measured_lines(table))


def _measured_lines(table: BoxTable) -> list[str]:
    """The weights and protocols of the measured errors."""
    measured = [one for result in table.results for one in result.measured.values()]
    if not measured:
        return []
    members = {
        f"  {member['net']}: weights sha256 {member['weights_sha256'][:16]}, started from "
        f"{member['classifier_sha256'][:16]}"
        for localised in measured
        for member in localised.members
    }
    protocols = dict.fromkeys(localised.protocol for localised in measured)
    protocol_lines = [f"  {protocol}" for protocol in protocols]
    return ["", "Measured with:", *sorted(members), "", "Protocols:", *protocol_lines]


def _cells(result: BoxResult, methods: Sequence[str]) -> list[str]:
    errors = {method: 100 * localised.error for method, localised in result.measured.items()}
    return [
        result.row.name,
        *map(percent, result.row.published.values()),
        *(percent(errors.get(method)) for method in methods),
        result.scales if result.measured else f"{result.scales}, missing",
    ]


def _listed(scales: Sequence[int]) -> str:
    return ",".join(map(str, scales))
