"""A part of the campaign of damaged files, and the campaign itself."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from prototxt_gen.errors import ProtoError
from tests.mutation import campaign
from tests.mutation.campaign import READ, REFUSED, file_of, read_files, run
from tests.mutation.mutate import mutant
from tests.mutation.targets import TARGETS, Target


@pytest.mark.parametrize("kind", TARGETS)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    target = TARGETS[kind]
    for number, seed in enumerate(target.seeds()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / target.name).write_bytes(seed)
        if b"<!DOCTYPE" not in seed:
            target.read(folder / target.name)


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_are_read_or_refused(kind: str) -> None:
    results = [result for _, result, _ in read_files(kind, 0, 60)]
    assert set(results) <= {READ, REFUSED}
    assert REFUSED in results


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_many_damaged_files_are_read_or_refused(kind: str) -> None:
    outcome = run(kind, 10**6, 3000)
    assert outcome.faults == {}
    assert sum(outcome.counts.values()) == 3000


def test_a_number_gives_one_file() -> None:
    seeds = TARGETS["toml"].seeds()
    files = [file_of("toml", seeds, number) for number in range(200)]
    assert files == [file_of("toml", seeds, number) for number in range(200)]
    assert len(set(files)) > 190 and not set(seeds) & set(files[:5])
    assert mutant([b""], random.Random(1)) is not None


def _target(monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]) -> None:
    monkeypatch.setitem(TARGETS, "own", Target(lambda: [b"x"], read))


def test_other_errors_are_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = iter([KeyError("x"), RecursionError(), ProtoError("x"), SystemExit(0)])

    def read(path: Path) -> None:
        raise next(errors)

    _target(monkeypatch, read)
    results = [result for _, result, _ in read_files("own", 0, 4)]
    assert [result.split()[0] for result in results] == [
        *("KeyError", "RecursionError", REFUSED, "SystemExit")
    ]
    assert "test_campaign.py" in results[0]


_CHILD = """
import json, os, sys, time
first, count = int(sys.argv[4]), int(sys.argv[6])
for number in range(first, first + count):
    if number == 3:
        os.abort()
    if number == 5:
        time.sleep(60)
    print(json.dumps([number, "read" if number % 2 else "refused", 0.1 * number]), flush=True)
"""


def test_a_crash_and_a_hang_are_faults_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "child.py").write_text(_CHILD)
    monkeypatch.setattr(campaign, "PROGRAM", (sys.executable, str(tmp_path / "child.py")))
    monkeypatch.setattr(campaign, "IMPORTS", 5.0)
    outcome = run("toml", 0, 8, seconds=0.2)
    assert outcome.faults == {"crash with status -6": [3], "longer than 0.2 s": [5]}
    assert outcome.counts == {READ: 2, REFUSED: 4} and outcome.slowest == pytest.approx(0.7)
    assert next(outcome.lines()) == (
        "toml: 8 files, 2 read, 4 refused, 2 faults, the slowest 0.70 s"
    )


def test_the_program_runs(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["campaign", "pca", "--count", "5"])
    assert campaign.main() == 0
    assert capfd.readouterr().out.startswith("pca: 5 files, ")
    assert shutil.which(campaign.PROGRAM[0])
