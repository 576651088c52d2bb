"""Planted faults under AddressSanitizer and ThreadSanitizer, each in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_kernels.host_build import sanitizer_environment
from prototxt_gen.errors import DeviceError
from runtime.backend.cuda.driver_emulator import EmulatorDriver

pytestmark = pytest.mark.usefixtures("compiler")

ROOT = Path(__file__).parents[2]


def run(sanitizer: str, source: str, kernel: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.cuda_kernels.run_fault", sanitizer, source, kernel],
        cwd=ROOT,
        env={**sanitizer_environment(sanitizer), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def place(file: str, text: str) -> int:
    """The line in a source that contains the text, from 1."""
    lines = (ROOT / "tests/cuda_kernels/sources" / file).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize(
    ("source", "kernel"),
    [("faults", "reverse"), ("faults", "reuse"), ("faults", "copy"), ("tensor", "ring_right")],
)
def test_the_right_twins_pass(sanitizer: str, source: str, kernel: str) -> None:
    done = run(sanitizer, source, kernel)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "access", "line"),
    [
        ("write_beyond", "WRITE of size 4", "y[threadIdx.x + 1] = 1.0f;"),
        ("write_before", "WRITE of size 4", "- 1] = 1.0f;"),
        ("read_beyond", "READ of size 4", "= x[threadIdx.x + 1];"),
        ("wrong_stride", "READ of size 4", "x[n / 2 + 1 + threadIdx.x];"),
        ("shared_write_beyond", "WRITE of size 4", "tile[threadIdx.x + 1] = x"),
        ("shared_read_beyond", "READ of size 4", "= tile[threadIdx.x + 1];"),
    ],
)
def test_addresses_out_of_bounds_are_found_at_their_line(
    kernel: str, access: str, line: str
) -> None:
    done = run("address", "faults", kernel)
    assert done.returncode != 0
    assert "AddressSanitizer: use-after-poison" in done.stderr
    assert access in done.stderr
    assert re.search(rf"#0 .* in {kernel} \S*faults\.cu:{place('faults.cu', line)}\b", done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "kernel", "function", "line"),
    [
        ("faults", "missing_barrier", "reverse_by_tile<false>", "tile[threadIdx.x] = x"),
        ("faults", "write_after_read", "reuse_tile<false>", "tile[threadIdx.x] = x[row"),
        ("tensor", "ring_no_barrier", "emu_copy<4>", ""),
    ],
)
def test_races_are_found_at_their_line(source: str, kernel: str, function: str, line: str) -> None:
    done = run("thread", source, kernel)
    assert done.returncode == 66
    assert "ThreadSanitizer: data race" in done.stderr
    assert function in done.stderr
    if line:
        assert f"{source}.cu:{place(f'{source}.cu', line)}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
@pytest.mark.parametrize("kernel", ["return_before_barrier", "absent_lanes"])
def test_divergence_is_an_error_as_without(sanitizer: str, kernel: str) -> None:
    done = run(sanitizer, "faults", kernel)
    assert f"DeviceError: kernel '{kernel}', block (0, 0, 0): " in done.stderr


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_a_sanitizer_must_be_there_before_python(sanitizer: str) -> None:
    with pytest.raises(DeviceError) as caught:
        EmulatorDriver(sanitizer=sanitizer)
    assert str(caught.value) == (
        f"sanitizer '{sanitizer}': this process runs without lib{sanitizer[0]}san.so; expected it "
        "before all other libraries; start Python in the environment of "
        "cuda_kernels.host_build.sanitizer_environment"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "random"}, "order is 'random'; expected one of forward, reversed, shuffled; "),
        ({"streams": "slow"}, "streams is 'slow'; expected one of eager, late, early; use "),
        (
            {"sanitizer": "leak"},
            "sanitizer is 'leak'; expected one of address, thread; use one of them",
        ),
    ],
)
def test_unknown_options_are_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(DeviceError) as caught:
        EmulatorDriver(**options)  # type: ignore[arg-type]  # the values are the point
    assert words in str(caught.value)
