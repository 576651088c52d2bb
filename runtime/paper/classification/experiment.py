"""The whole of Tables 3 to 7: every run, every row, and a report in Markdown."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from runtime.backend.base import Backend
from runtime.paper.classification.claims import AGREES, Verdict, judge
from runtime.paper.classification.report import (
    markdown_results,
    markdown_table,
    missing_commands,
    plot_table,
    table_json,
)
from runtime.paper.classification.tables import Result, TableMaker
from runtime.paper.driver import RecipeOptions, run_recipe
from runtime.paper.published import TABLES, TITLES
from runtime.paper.recipe import steps_for_tables
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
    """Train what tables need, measure them, and write the report; returns its path.

    Raises:
        VerydeepError: what stands in the way; all that is done is found next time.
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
    """Write a table's JSON and picture; returns their paths."""
    data = folder / f"table{number}.json"
    atomic_write_text(data, json.dumps(table_json(number, results), indent=2) + "\n", DataError)
    return data, plot_table(number, results, folder / f"table{number}.png")


def report_lines(
    setting: Setting,
    runs: Sequence[FinishedRun],
    results: dict[int, list[Result]],
    seconds: tuple[float, float],
) -> list[str]:
    """The report: the setting, what the paper concludes and whether it holds, tables, runs."""
    verdicts = judge(result for table in results.values() for result in table)
    lines = ["# The paper's classification experiments, measured", "", *_listed(setting.words())]
    lines += [
        f"- This start trained for {seconds[0] / 60:.1f} min and evaluated for "
        f"{seconds[1] / 60:.1f} min; what was found done counts nothing.",
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
        f"{agreeing} of {len(verdicts)} hold here. Errors are top-1, in per cent; a difference "
        "of no more than one standard deviation decides nothing.",
        "",
    ]
    head = ("section", "the paper says", "better", "worse", "noise", "here")
    body = [
        [
            verdict.claim.section,
            verdict.claim.sentence,
            *(
                "-" if value is None else f"{value:.1f}"
                for value in (verdict.better, verdict.worse, verdict.noise)
            ),
            verdict.outcome,
        ]
        for verdict in verdicts
    ]
    return lines + markdown_table(head, body)


def _listed(words: Sequence[str]) -> list[str]:
    return [f"- {word}" for word in words]
