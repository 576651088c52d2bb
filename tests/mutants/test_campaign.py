"""The campaign: mutants are the same in every process, and each kind of failure is detected.

Campaigns run in separate processes, because a process that has computed has threads, and must not
fork.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mutants.formats import FORMATS

ROOT = Path(__file__).parents[2]
FAST, SLOW = 12, 2000
_FIRST_SLOW = 100_000_000
"""Slow tests read other mutants than a campaign that starts at 0 with the same seed."""


def _rehearse(part: str) -> Any:
    command = [sys.executable, "-m", "tests.mutants.rehearsal", part]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(done.stdout)


def test_a_mutant_is_a_function_of_format_seed_and_index() -> None:
    made = _rehearse("mutants")
    assert list(made) == list(FORMATS)
    assert made == _rehearse("mutants")
    assert all(len(set(digests)) > 15 for digests in made.values())


@pytest.fixture(scope="module")
def noticed() -> Any:
    return _rehearse("failures")


@pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux does")
@pytest.mark.parametrize(
    ("name", "kind", "error", "count"),
    [
        ("busy", "hang", "CPU time", 2),
        ("blocked", "hang", "blocked", 2),
        ("crash", "crash", "SIGSEGV", 2),
        ("take", "allocation", "memory", 2),
        ("take_too_much", "allocation", "MemoryError", 2),
        ("complain", "allocation", "library", 2),
        ("talk", "message", "DataError", 2),
        ("contradict", "wrong", "AssertionError", 2),
        ("convert", "untyped", "ValueError", 2),
        ("leave_open", "leak", "files left open", 1),
    ],
)
def test_failures_are_noticed(name: str, kind: str, error: str, count: int, noticed: Any) -> None:
    (group,) = noticed[name]["groups"]
    assert (group["kind"], group["error"], group["count"]) == (kind, error, count)
    assert group["first"] == (0 if kind != "leak" else 1)


def test_typed_errors_are_no_failures(noticed: Any) -> None:
    for name, numbers in (("refuse", (0, 2)), ("accept", (2, 0))):
        assert (noticed[name]["accepted"], noticed[name]["refused"]) == numbers
        assert noticed[name]["groups"] == []


def _run(folder: Path, *arguments: str) -> dict[str, list[str]]:
    """The failures of each format, in a separate process without threads, which can fork."""
    results = folder / "results.json"
    command = [sys.executable, "-m", "tests.mutants", "--json", str(results), *arguments]
    subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
    return {
        row["format"]: [
            f"{group['kind']}: {group['error']} at {group['place']}, mutant {group['first']}: "
            f"{group['message']}"
            for group in row["groups"]
        ]
        for row in json.loads(results.read_text())
    }


@pytest.fixture(scope="module")
def fast_results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return _run(tmp_path_factory.mktemp("mutants"), "--count", str(FAST))


@pytest.mark.parametrize("name", FORMATS)
def test_few_mutants_do_no_harm(name: str, fast_results: dict[str, list[str]]) -> None:
    assert fast_results[name] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_mutants_do_no_harm(name: str, tmp_path: Path) -> None:
    chosen = ("--format", name, "--start", str(_FIRST_SLOW), "--count", str(SLOW))
    assert _run(tmp_path, *chosen) == {name: []}
