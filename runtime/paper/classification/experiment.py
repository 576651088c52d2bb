"""Tables 3 to 7 as one experiment: every run, every row, and a report in Markdown."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from runtime.backend.base import Backend
from runtime.paper.classification.claims import AGREES, Verdict, judge
from runtime.paper.classification.published import TABLES, rows
from runtime.paper.classification.report import (
    markdown_results,
    missing_commands,
    plot_table,
    table_json,
)
from runtime.paper.classification.tables import Result, TableMaker
from runtime.paper.driver import RecipeOptions, run_recipe
from runtime.paper.published import TITLES
from runtime.paper.recipe import Step, steps_for
from runtime.paper.report import markdown_table, percent
from runtime.paper.report import write_table as write_json
from runtime.paper.run_folder import FinishedRun, RunFolder
from runtime.paper.setting import Setting

log = logging.getLogger("verydeep.paper")

REPORT = "report.md"


def reproduce(
    folder: RunFolder,
    setting: Setting,
    backend: Backend,
    options: RecipeOptions | None = None,
    tables: Sequence[int] = TABLES,
) -> Path:
    """Train the runs of some tables, measure them, and write a report; return its path.

    Raises:
        VerydeepError: a run or an evaluation failed; finished work is kept.
    """
    started = time.monotonic()
    runs = run_recipe(folder, setting, steps_for_tables(tables), backend, options)
    trained = time.monotonic()
    maker = TableMaker(folder, setting, backend)
    results: dict[int, list[Result]] = {}
    for number in tables:
        log.info("Measuring Table %d: %s", number, TITLES[number])
        results[number] = maker.table(number)
        write_table(folder.tables, number, results[number])
    seconds = (trained - started, time.monotonic() - trained)
    lines = report_lines(setting, runs, results, seconds)
    path = folder.root / REPORT
    atomic_write_text(path, "\n".join(lines) + "\n", DataError)
    return path


def write_table(folder: Path, number: int, results: Sequence[Result]) -> tuple[Path, Path]:
    """Write a table as JSON and as a picture; return both paths.

    Raises:
        DataError: a file cannot be written.
    """
    data = write_json(folder, table_json(number, results))
    return data, plot_table(number, results, data.with_suffix(".png"))


def steps_for_tables(tables: Iterable[int]) -> list[Step]:
    """Return the runs that the rows of tables need, each once, in an order that works."""
    return steps_for(
        (net.net, net.train) for table in tables for row in rows(table) for net in row.nets
    )


def report_lines(
    setting: Setting,
    runs: Sequence[FinishedRun],
    results: dict[int, list[Result]],
    seconds: tuple[float, float],
) -> list[str]:
    """Return the report: setting, conclusions of the paper, tables and runs.

    Units: `seconds` of training and of evaluation.
    """
    verdicts = judge(result for table in results.values() for result in table)
    lines = [
        "# The paper's classification experiments, measured",
        "",
        *(f"- {line}" for line in setting.words()),
    ]
    lines += [
        f"- This command trained for {seconds[0] / 60:.1f} min and evaluated for "
        f"{seconds[1] / 60:.1f} min, without runs that were already finished.",
        "",
        "## The paper's conclusions",
        "",
        *_verdict_lines(verdicts),
    ]
    for number, table in results.items():
        lines += ["", f"## Table {number}: {TITLES[number]}", "", *markdown_results(table), ""]
        lines.append(f"![Table {number}](tables/table{number}.png)")
        lines += [f"- missing: `{command}`" for command in missing_commands(table)]
    lines += ["", "## Runs", ""]
    head = ("run", "net", "started from", "iterations", "seconds", "weights sha256")
    keys = ("net", "started_from", "iterations", "seconds")
    body = [
        [run.name, *(str(run.note[key]) for key in keys), run.note["weights_sha256"][:16]]
        for run in runs
    ]
    return [*lines, *markdown_table(head, body)]


def _verdict_lines(verdicts: Sequence[Verdict]) -> list[str]:
    agreeing = sum(verdict.outcome == AGREES for verdict in verdicts)
    lines = [
        f"{agreeing} of {len(verdicts)} agree with the measured errors (top-1, in per cent). A "
        "difference of at most one standard deviation counts as noise.",
        "",
    ]
    head = ("section", "conclusion", "better", "worse", "noise", "here")
    body = [
        [
            verdict.claim.section,
            verdict.claim.sentence,
            *map(percent, (verdict.better, verdict.worse, verdict.noise)),
            verdict.outcome,
        ]
        for verdict in verdicts
    ]
    return lines + markdown_table(head, body)
