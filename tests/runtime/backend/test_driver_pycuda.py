from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda import open_driver
from runtime.backend.cuda.driver import Driver
from runtime.backend.cuda.driver_pycuda import PyCudaDriver
from tests.fakecuda.build import ROOT, build, environment, why_not
from tests.runtime.backend.driver_contract import CASES, Case

CASES_FILE = Path(__file__).parent / "pycuda_cases.py"


class CudaError(Exception):
    """Stands in for pycuda.driver.Error."""


def install(monkeypatch: pytest.MonkeyPatch, driver: Any) -> None:
    """Let `import pycuda.driver` give this."""
    package = ModuleType("pycuda")
    package.__path__ = []
    if driver is not None:
        package.driver = driver  # type: ignore[attr-defined]  # as an import would set it
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)


def failing(message: str) -> Any:
    def fail(*_: Any) -> None:
        raise CudaError(message)

    return fail


def test_without_pycuda_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(DeviceError) as caught:
        open_driver("gpu")
    assert re.fullmatch(
        r"backend 'gpu': PyCUDA cannot be imported \(.*\); expected the extra \[cuda\]; install "
        r"it: pip install 'verydeep\[cuda\]' \(it needs the CUDA toolkit\)",
        str(caught.value),
    )


def test_without_a_driver_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    message = "libcuda.so.1: cannot open shared object file: No such file or directory"

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "pycuda.driver":
                raise ImportError(message)

    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(DeviceError) as caught:
        open_driver("gpu")
    assert str(caught.value) == (
        f"backend 'gpu': there is no NVIDIA driver on this machine ({message}); expected "
        "libcuda.so.1; install the driver, or use the backend 'cpu' (solver_mode: CPU)"
    )


def test_without_a_device_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, SimpleNamespace(init=failing("no CUDA-capable device"), Error=CudaError))
    with pytest.raises(DeviceError) as caught:
        open_driver("gpu")
    assert str(caught.value) == (
        "backend 'gpu': the NVIDIA driver finds no GPU (no CUDA-capable device); expected one that "
        "nvidia-smi lists; check it, or use the backend 'cpu' (solver_mode: CPU)"
    )


@pytest.mark.parametrize(
    ("count", "there"), [(0, "there is none"), (2, "there are 2, from 0 to 1")]
)
def test_a_number_that_no_device_has(
    monkeypatch: pytest.MonkeyPatch, count: int, there: str
) -> None:
    device = SimpleNamespace(count=lambda: count)
    install(monkeypatch, SimpleNamespace(init=lambda: None, Error=CudaError, Device=device))
    with pytest.raises(DeviceError) as caught:
        open_driver("gpu", 2)
    assert str(caught.value) == (
        f"gpu 2: no such GPU; {there}; give another number by --gpu or device_id"
    )


def test_unmodified_pycuda_over_a_fake_driver_library(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(CASES_FILE), "-v", "--color=no"],
        cwd=ROOT,
        env=environment(tmp_path, devices=2, memory=1 << 24),
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout + done.stderr
    assert done.returncode == 0, report[-6000:]
    assert "skipped" not in report
    assert not re.search("PyCUDA (WARNING|ERROR)|fakecuda: ", report), report[-3000:]


def test_the_check_of_a_gpu_machine_over_a_fake_driver_library(tmp_path: Path) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    build(tmp_path)
    flags = [
        "--size",
        "tiny",
        "--stages",
        "machine,build,bandwidth,launches",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu_check.py", *flags],
        cwd=ROOT,
        env=environment(tmp_path, devices=1, memory=1 << 28),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cases = json.loads((tmp_path / "out" / "machine.json").read_text())["cases"]
    assert (cases[0]["gpu"], cases[0]["nvcc"]) == ("fake GPU", "99.0.0")
    cases = json.loads((tmp_path / "out" / "launches.json").read_text())["cases"]
    assert [case["step"] for case in cases] == ["training", "inference"]
    for case in cases:
        assert case["launches, verydeep"] < case["launches, launch by launch"] / 10


@pytest.fixture(scope="module")
def gpu() -> Iterator[Driver]:
    try:
        driver = PyCudaDriver(0)
    except DeviceError as cause:
        pytest.skip(str(cause))
    yield driver
    driver.close()


@pytest.mark.gpu
@pytest.mark.parametrize("contract", CASES, ids=lambda case: case.__name__)
def test_contract(contract: Case, gpu: Driver) -> None:
    contract(gpu)
