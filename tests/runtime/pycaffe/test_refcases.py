"""Results of original Caffe, computed here; tests/golden/README.md describes their origin.

All recorded cases are run if the environment variable VERYDEEP_REFCASES names their folder, which
has check_refcases.py next to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime.pycaffe as caffe

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "refcases"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())
PASSES = {"hdf5data": 3}
TOLERANCE, TRACE_TOLERANCE = 1e-4, 2e-3

Expected = dict[str, np.ndarray]


def read(path: Path) -> Expected:
    with np.load(path) as archive:
        return dict(archive)


def of_kind(expected: Expected, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    result = [key for key in expected if key.startswith(f"{kind}/")]
    return ((key.partition("/")[2], expected[key]) for key in result)


def close(name: str, result: Any, expected: np.ndarray, tolerance: float) -> None:
    """Compare by the largest difference over the largest number; shapes up to axes of 1."""
    result = np.asarray(result, np.float64)
    assert result.squeeze().shape == expected.squeeze().shape, name
    if expected.size:
        scale = max(float(np.abs(expected).max()), 1e-6)
        error = float(np.abs(result.ravel() - expected.ravel()).max()) / scale
        assert error <= tolerance, f"{name}: off by {error:.1e}"


def weight(net: caffe.Net, key: str) -> Any:
    layer, index = key.rsplit("__", 1)
    return net.params[layer][int(index)]


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDEN / "cases" / name
    monkeypatch.chdir(folder)
    expected = read(folder / "expected.npz")
    phase = getattr(caffe, (folder / "phase.txt").read_text().strip())
    forms = sorted(path.name for path in folder.glob("weights*"))
    nets = [caffe.Net("net.prototxt", phase, weights=form) for form in forms]
    for net in nets:
        for key, values in of_kind(expected, "params"):
            assert np.array_equal(weight(net, key).data.ravel(), values.ravel()), key
    net = nets[0] if nets else caffe.Net("net.prototxt", phase)
    for key, values in of_kind(expected, "in"):
        net.blobs[key].data[...] = values
    for _ in range(PASSES.get(name, 1)):
        net.forward()
    checked = 0
    for key, values in of_kind(expected, "fwd"):
        close(f"forward {key}", net.blobs[key].data, values, TOLERANCE)
        checked += 1
    net.clear_param_diffs()
    for key, values in of_kind(expected, "topdiff"):
        net.blobs[key].diff[...] = values
    net.backward()
    for key, values in of_kind(expected, "diff"):
        close(f"backward {key}", net.blobs[key].diff, values, TOLERANCE)
        checked += 1
    for key, values in of_kind(expected, "pdiff"):
        close(f"gradient of {key}", weight(net, key).diff, values, TOLERANCE)
        checked += 1
    assert checked >= 2


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Expected:
    """A copy of the recorded run in the working folder."""
    shutil.copytree(GOLDEN / "trace", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return read(GOLDEN / "trace" / "expected.npz")


def test_trace(trace: Expected) -> None:
    for path in Path().glob("snap_*"):
        path.unlink()
    solver = caffe.get_solver("solver.prototxt")
    solver.net.copy_from("init.caffemodel")
    losses, rates = [], []
    for iteration in range(50):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        rates.append(solver.lr)
        for key, values in of_kind(trace, "params_1" if iteration == 0 else "none"):
            close(key, weight(solver.net, key).data, values, TOLERANCE)
    close("loss", losses, trace["loss"][:50], TRACE_TOLERANCE)
    close("lr", rates, trace["lr"][:50], 1e-6)
    final = dict(of_kind(trace, "final_params"))
    assert len(final) == 8
    for key, values in final.items():
        close(key, weight(solver.net, key).data, values, TRACE_TOLERANCE)
    names = {path.name for path in Path().glob("snap_*")}
    assert {
        f"snap_iter_{n}.{kind}" for n in (25, 50) for kind in ("caffemodel", "solverstate")
    } <= (names)


def test_caffes_own_snapshot_resumes_as_ours(trace: Expected) -> None:
    straight, resumed = (caffe.get_solver("solver.prototxt") for _ in range(2))
    resumed.restore("snap_iter_25.solverstate")
    assert resumed.iter == 25
    straight.net.copy_from("init.caffemodel")
    straight.step(25)
    assert len(straight.core.engine.history) == 8
    for mine, theirs in zip(straight.core.engine.history, resumed.core.engine.history):
        close(mine.name, mine.data.host(), theirs.data.host(), TRACE_TOLERANCE)
    for mine, theirs in zip(straight.net.params["conv1"], resumed.net.params["conv1"]):
        close("conv1", mine.data, theirs.data, TRACE_TOLERANCE)


def test_a_wrong_number_is_seen() -> None:
    with pytest.raises(AssertionError, match=r"x: off by 1.0e-03"):
        close("x", [1.0, 0.999], np.array([1.0, 1.0]), TOLERANCE)
    with pytest.raises(AssertionError, match="x"):
        close("x", [1.0], np.array([1.0, 1.0]), TOLERANCE)


FOLDER = os.environ.get("VERYDEEP_REFCASES", "")


@pytest.mark.skipif(not FOLDER, reason="VERYDEEP_REFCASES names no folder of recorded cases")
def test_all_recorded_cases() -> None:
    checker = Path(FOLDER).parent / "check_refcases.py"
    done = subprocess.run(
        [sys.executable, str(checker), FOLDER], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-1000:]
    assert " passed, 0 failed" in done.stdout
