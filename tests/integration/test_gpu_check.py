"""The check of a GPU machine, run dry: the emulator for the GPU, sizes that take seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
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
    done = check(tmp_path, "machine,build,probes,bandwidth,layers,memcheck")
    assert done.returncode == 0, done.stdout + done.stderr
    assert rows(tmp_path, "machine")[0]["arch"] == 90
    assert [row["driver"] for row in rows(tmp_path, "build")] == ["emu", "emu"]
    probes = {row.pop("probe"): row for row in rows(tmp_path, "probes")}
    assert len(probes) == 8 and not any("error" in row for row in probes.values())
    assert probes["upload"]["intact"] is True
    # The emulator rounds every sum to nearest.
    assert probes["tf32 rounding"] == {
        "of_0.75_units": 1.0, "of_1.5_units": 2.0, "of_0.25_units": 0.0
    }  # fmt: skip
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
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        assert {"layers.json", "layers.log", "machine.json"} <= set(archive.getnames())


def rows_of_summary(out: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((out / "summary.json").read_text())["stages"]
    return found


def test_replayed_steps_are_compared_with_single_launches(tmp_path: Path) -> None:
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
    assert found == [("A/8", kind, p) for p in ("bf16", "tf32", "fp32") for kind in kinds]


LATE_AND_FAILED = """
import sys, time
from pathlib import Path
import gpu_check
from gpu_stages import Stage
out = Path(sys.argv[1])
def stages(device, size, work):
    script = "import time; print('begun', flush=True); time.sleep({}); raise SystemExit({})"
    return [
        Stage("sleeps", 1, [sys.executable, "-c", script.format(60, 0)]),
        Stage("fails", 60, [sys.executable, "-c", script.format(0, 3)]),
        Stage("tests", 60, [sys.executable, "-c", script.format(0, 0)]),
        Stage("works", 60, [sys.executable, "-c", script.format(0, 0)]),
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


CUT = """
import sys
from pathlib import Path
import gpu_check
import gpu_stages
out = Path(sys.argv[1])
def stages(device, size, work):
    stage = gpu_stages._tests("tests", 60, "emu", work, 1)
    command = [*stage.command[:stage.command.index("-m", 2)], str(out / "test_two.py")]
    return [gpu_stages.Stage("tests", 60, command, None, 1, stage.environment)]
gpu_check.stages = stages
sys.exit(gpu_check.main(["--out", str(out), "--work", str(out / "work"), "--device", "emu"]))
"""


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path: Path) -> None:
    """The run is ended from outside while a test hangs: the earlier failure is in the archive."""
    (tmp_path / "test_two.py").write_text(
        "import pathlib, time\n"
        "def test_fails(): assert 'the first' == 'expected'\n"
        f"def test_hangs(): pathlib.Path({str(tmp_path / 'hangs')!r}).touch(); time.sleep(100)\n"
    )
    script = tmp_path / "check.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{CUT}")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.terminate()
    assert child.wait(30) == 1
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        failures = archive.extractfile("tests.failures.txt")
        assert failures is not None
        text = failures.read().decode()
        assert "tests.log" in archive.getnames()
    assert "test_fails (call)" in text and "'the first' == 'expected'" in text


def test_the_archive_is_replaced_during_the_run(tmp_path: Path) -> None:
    code = """
import sys, tarfile, time
from pathlib import Path
from gpu_archive import Archive
out = Path(sys.argv[1])
(out / "work").mkdir()
target = out / "results.tar.gz"
def names():
    with tarfile.open(target) as archive:
        return archive.getnames()
with Archive(out / "work", target, 0.05):
    for number in range(3):
        (out / "work" / f"{number}.json").write_text("{}")
        deadline = time.monotonic() + 20
        while not (target.exists() and f"{number}.json" in names()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    (out / "work" / "weights").write_bytes(bytes(5 << 20))
    (out / "work" / "last").write_text("")
print(*sorted(names()), *sorted(path.name for path in out.iterdir()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=BENCHMARKS, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["0.json", "1.json", "2.json", "last", "results.tar.gz", "work"]


def test_the_parts_fit_into_a_visit() -> None:
    code = """
from pathlib import Path
from gpu_stages import PART_SECONDS, stages
every = stages("gpu", "full", Path("work"))
assert [stage.part for stage in every] == sorted(stage.part for stage in every)
assert {stage.part for stage in every} == set(PART_SECONDS) == {1, 2}
assert PART_SECONDS == {1: 180.0, 2: 380.0}
print(*(stage.name for stage in every if stage.part == 1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=BENCHMARKS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["machine", "build", "tests", "probes", "step", "profile"]


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 2])
def test_a_rehearsal_on_the_emulator(tmp_path: Path, part: int) -> None:
    """Each part by the script itself; few files come back, in no folder."""
    out = tmp_path / "out"
    chosen = "machine,build,tests,probes,step,profile,layers,steps,launches,bandwidth,counters"
    done = subprocess.run(
        ["bash", str(BENCHMARKS / "gpu_check.sh"), "", str(out), "--device", "emu", "--size",
         "tiny", "--part", str(part), "--stages", chosen],
        env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "missing for Python" in done.stderr and done.returncode == 1 and not out.exists():
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "results.tar.gz", "summary.json", "summary.txt"
    ]  # fmt: skip
    stages = {row["name"]: row["status"] for row in rows_of_summary(out)}
    assert len(stages) == {1: 6, 2: 5}[part]
    with tarfile.open(out / "results.tar.gz") as archive:
        names = set(archive.getnames())
    assert {f"{name}.log" for name, status in stages.items() if status == "ok"} <= names


def test_what_is_missing_is_reported() -> None:
    code = "import gpu_needs; print(gpu_needs.advice(['lmdb', 'pycuda'], '/wheels'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True
    )
    first, *commands = done.stdout.splitlines()
    assert "lmdb, pycuda; /wheels has 0 wheels; expected a folder with wheels of them" in first
    assert commands[0].endswith("-d WHEELS lmdb") and "pip wheel --no-deps" in commands[1]
    assert run("gpu_check.py", "--out", "x", "--stages", "all").stdout.startswith(
        "gpu_check: no stage all; expected machine, build, tests, probes, step, profile, layers, "
    )


def test_without_a_gpu_the_error_is_one_sentence(tmp_path: Path) -> None:
    done = run("gpu_check.py", "--out", str(tmp_path), "--stages", "machine")
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: backend 'gpu': ") and "; expected" in done.stderr
