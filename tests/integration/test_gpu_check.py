"""The check of a GPU machine, run dry: the emulator for the GPU, sizes that take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *flags],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def check(out: Path, stages: str) -> subprocess.CompletedProcess[str]:
    dry = ("--device", "emu", "--size", "tiny", "--stages", stages)
    return run("gpu_check.py", "--out", str(out), *dry)


def rows(out: Path, stage: str) -> list[dict[str, object]]:
    record = json.loads((out / f"{stage}.json").read_text())
    assert record["machine"]["revision"] and record["command"].startswith("python ")
    found: list[dict[str, object]] = record["cases"]
    return found


def test_a_dry_run_measures_and_sums_up(tmp_path: Path) -> None:
    done = check(tmp_path, "machine,build,bandwidth,layers,memcheck")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "machine")[0]["arch"] == 90
    assert [row["driver"] for row in rows(tmp_path, "build")] == ["emu", "emu"]
    copy, *others = rows(tmp_path, "bandwidth")
    assert copy["share_of_copy"] == 1 and len(others) == 8
    layers = rows(tmp_path, "layers")
    assert len(layers) == 2 * 3 * 3
    assert {(row["pass"], row["precision"]) for row in layers} >= {("backward data", "bf16")}
    assert all(row["ms"]["verydeep"] > 0 for row in layers)  # type: ignore[index]  # of JSON
    stages = {row["name"]: row["status"] for row in rows_of_summary(tmp_path)}
    assert stages["layers"] == "ok" and stages["memcheck"] in (
        "left out: no compute-sanitizer",
        "ok",
    )
    assert "machine    ok" in (tmp_path / "summary.txt").read_text()


def rows_of_summary(out: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((out / "summary.json").read_text())["stages"]
    return found


def test_replayed_steps_are_held_against_launches_one_by_one(tmp_path: Path) -> None:
    done = check(tmp_path, "launches")
    assert done.returncode == 0, done.stdout + done.stderr
    training, inference = rows(tmp_path, "launches")
    for row, replays in ((training, 3), (inference, 1)):
        assert row["replays"] >= 2 * replays  # type: ignore[operator]  # of JSON
        assert row["launches, verydeep"] < row["launches, launch by launch"] / 10  # type: ignore[operator]
    assert inference["launches, verydeep"] == 0


def test_a_dry_run_needs_no_pycuda() -> None:
    # Without site-packages everything is missing.
    command = [sys.executable, "-I", "-S", str(BENCHMARKS / "gpu_needs.py"), ""]
    for flags, wanted in ((["--device", "emu"], False), ([], True)):
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, check=False, cwd=BENCHMARKS
        )
        assert done.returncode == 1
        assert "missing for Python" in done.stderr
        assert ("pycuda" in done.stderr) is wanted


@pytest.mark.slow
def test_whole_steps_run_dry(tmp_path: Path) -> None:
    done = run(
        *("gpu.py", "steps", "--device", "emu", "--size", "tiny"),
        *("--out", str(tmp_path / "steps.json")),
    )
    assert done.returncode == 0, done.stderr
    found = [(row["net"], row["step"], row["precision"]) for row in rows(tmp_path, "steps")]
    kinds = ("training", "inference")
    assert found == [("A/8", kind, p) for p in ("fp32", "tf32", "bf16") for kind in kinds]


LATE_AND_FAILED = """
import sys, time
from pathlib import Path
import gpu_check
out = Path(sys.argv[1])
def stages(device, size, folder):
    say = "import time; print('begun', flush=True); time.sleep({}); raise SystemExit({})"
    return [
        gpu_check.Stage("sleeps", 1, [sys.executable, "-c", say.format(60, 0)]),
        gpu_check.Stage("fails", 60, [sys.executable, "-c", say.format(0, 3)]),
        gpu_check.Stage("tests", 60, [sys.executable, "-c", say.format(0, 0)]),
        gpu_check.Stage("works", 60, [sys.executable, "-c", say.format(0, 0)]),
    ]
gpu_check.stages = stages
status = gpu_check.main(["--out", str(out), "--device", "emu"])
late = gpu_check.main(["--out", str(out / "b"), "--device", "emu", "--started", "0"])
print(status, late)
"""


def test_a_stage_that_fails_or_is_late_does_not_stop_the_others(tmp_path: Path) -> None:
    script = tmp_path / "check.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{LATE_AND_FAILED}")
    done = run(str(script), str(tmp_path / "out"))
    assert done.stdout.splitlines()[-1] == "1 1", done.stderr
    assert {row["name"]: row["status"] for row in rows_of_summary(tmp_path / "out")} == {
        "sleeps": "late: ended after 1 s",
        "fails": "failed: exit status 3",
        "tests": "failed: no test ran",
        "works": "ok",
    }
    late = rows_of_summary(tmp_path / "out" / "b")
    assert {row["status"] for row in late} == {"late: no time was left"}


def test_what_is_missing_is_said() -> None:
    code = "import gpu_needs; print(gpu_needs.advice(['lmdb', 'pycuda'], '/wheels'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True
    )
    first, *commands = done.stdout.splitlines()
    assert "lmdb, pycuda; /wheels has 0 wheels; expected a folder with wheels of them" in first
    assert commands[0].endswith("-d WHEELS lmdb") and "pip wheel --no-deps" in commands[1]
    assert run("gpu_check.py", "--out", "x", "--stages", "all").stdout.startswith(
        "gpu_check: no stage all; expected machine, build, tests, bandwidth, layers, steps, "
    )


def test_without_a_gpu_one_sentence_says_so(tmp_path: Path) -> None:
    done = run("gpu_check.py", "--out", str(tmp_path), "--stages", "machine")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: backend 'gpu': ") and "; expected" in done.stderr
