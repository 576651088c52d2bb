"""Tables 3 to 7 as one experiment: every run, every row, and a report in Markdown."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from runtime.backend.base import Backend
from runtime.paper.classification.claims import (
    AGAINST,
    FOR,
    Claim,
    Verdict,
    claims,
    controls,
    judge,
)
from runtime.paper.classification.published import TABLES, Row, rows
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
CLAIMS = "claims.json"


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
    statements = claims(setting.demo) + (controls() if setting.demo else [])
    needed = [claim for claim in statements if _tables_of(claim) <= set(tables)]
    compared = [row for claim in needed for row in (claim.better, claim.worse)]
    steps = steps_for_rows([*(row for table in tables for row in rows(table)), *compared])
    runs = run_recipe(folder, setting, steps, backend, options)
    trained = time.monotonic()
    maker = TableMaker(folder, setting, backend)
    results: dict[int, list[Result]] = {}
    for number in tables:
        log.info("Measuring Table %d: %s", number, TITLES[number])
        results[number] = maker.table(number)
        write_table(folder.tables, number, results[number])
    log.info("Comparing the rows of %d conclusions", len(needed))
    measured = [maker.result(row) for row in dict.fromkeys(compared)]
    verdicts = judge(needed, measured)
    seconds = (trained - started, time.monotonic() - trained)
    atomic_write_text(
        folder.tables / CLAIMS,
        json.dumps([verdict.to_json() for verdict in verdicts], indent=2) + "\n",
        DataError,
    )
    lines = report_lines(setting, runs, results, verdicts, seconds)
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


def steps_for_rows(needed: Iterable[Row]) -> list[Step]:
    """Return the runs that rows need, each once, in an order that works."""
    return steps_for((net.net, net.train) for row in needed for net in row.nets)


def _tables_of(claim: Claim) -> set[int]:
    return {claim.better.table, claim.worse.table}


def report_lines(
    setting: Setting,
    runs: Sequence[FinishedRun],
    results: dict[int, list[Result]],
    verdicts: Sequence[Verdict],
    seconds: tuple[float, float],
) -> list[str]:
    """Return the report: setting, conclusions of the paper, tables and runs.

    Units: `seconds` of training and of evaluation.
    """
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
    paper = [verdict for verdict in verdicts if not verdict.claim.control]
    control = [verdict for verdict in verdicts if verdict.claim.control]
    counts = [sum(verdict.outcome == outcome for verdict in paper) for outcome in (FOR, AGAINST)]
    certain = sum(verdict.holds_corrected for verdict in paper)
    lines = [
        f"Of {len(paper)} conclusions, {counts[0]} are confirmed, {counts[1]} are contradicted and "
        f"{len(paper) - sum(counts)} are undecided. Each is decided by McNemar's exact test at "
        f"95 % on the same images; {certain} remain decided if the tests are corrected for their "
        "number by Holm's method (marked *). The gain is the difference of the top-1 errors with "
        "its interval of 95 %, in per cent.",
        "",
        *_verdict_table(paper),
    ]
    if control:
        lines += [
            "",
            "### Controls",
            "",
            "Nets B to E start from layers of net A and are trained further. Net A2 is net A with "
            "the same further training: only a net that is better than A2 is better because it is "
            "deeper. B-scratch is net B trained from random weights, as the shallow net is.",
            "",
            *_verdict_table(control),
        ]
    return lines


def _verdict_table(verdicts: Sequence[Verdict]) -> list[str]:
    head = ("section", "conclusion", "evaluation", "better", "worse", "gain", "measured")
    return markdown_table(head, [_verdict_cells(verdict) for verdict in verdicts])


def _verdict_cells(verdict: Verdict) -> list[str]:
    claim, comparison = verdict.claim, verdict.comparison
    first, second, gain = None, None, "-"
    if comparison is not None:
        first, second = 100 * comparison.first, 100 * comparison.second
        low, high = 100 * comparison.low, 100 * comparison.high
        gain = f"{100 * comparison.difference:+.1f} ({low:+.1f} to {high:+.1f})"
    kinds = dict.fromkeys((claim.better.kind, claim.worse.kind))
    return [
        claim.section,
        claim.sentence,
        " / ".join(kinds),
        percent(first),
        percent(second),
        gain,
        verdict.outcome + (" *" if verdict.holds_corrected else ""),
    ]
