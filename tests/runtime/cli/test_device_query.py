"""`verydeep device_query`."""

from __future__ import annotations

import json
import sys

import pytest

from prototxt_gen.errors import DeviceError
from runtime.backend.cuda import driver_pycuda
from runtime.backend.cuda.driver import DeviceInfo
from runtime.backend.cuda.requirements import Requirement
from runtime.cli import device_query
from runtime.cli.main import main

INFO = DeviceInfo(
    name="some GPU",
    compute_capability=(9, 0),
    multiprocessors=132,
    total_memory=1 << 37,
    shared_per_block=1 << 16,
    clock_khz=1,
    memory_clock_khz=1,
    memory_bus_bits=1,
    l2_cache=1,
    driver_version="12.4",
)
NAMES = {
    "driver": "NVIDIA driver",
    "card": "NVIDIA GPU",
    "toolkit": "CUDA toolkit",
    "pycuda": "PyCUDA",
}


def requirements_without(*missing: str) -> dict[str, Requirement]:
    return {
        key: Requirement(name, key not in missing, f"detail of {key}", f"advice on {key}")
        for key, name in NAMES.items()
    }


def test_without_a_gpu_the_error_has_a_line_for_each_requirement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert main(["device_query", "-gpu", "0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(
        "verydeep device_query: backend 'gpu': PyCUDA cannot be imported ("
    )
    assert "install it: pip install 'verydeep[cuda]'" in printed.err
    assert "Traceback" not in printed.err
    lines = printed.err.splitlines()[1:]
    assert [line.strip().partition(":")[0] for line in lines] == list(NAMES.values())
    assert "  PyCUDA: missing (it is not installed); pip install" in printed.err


@pytest.mark.parametrize("missing", NAMES)
def test_what_is_missing_as_text_and_json(
    missing: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(wanted: object) -> None:
        raise DeviceError("no GPU; expected one; add one")

    monkeypatch.setattr(driver_pycuda, "query_devices", fail)
    monkeypatch.setattr(device_query, "gpu_requirements", lambda: requirements_without(missing))
    assert main(["device_query"]) == 2
    shown = capsys.readouterr().err
    for key, name in NAMES.items():
        line = f"  {name}: detail of {key}\n"
        absent = f"  {name}: missing (detail of {key}); advice on {key}\n"
        assert (absent if key == missing else line) in shown
    assert main(["device_query", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == [missing] and found["devices"] == []
    assert found["error"] == "no GPU; expected one; add one"
    assert found["requirements"][missing]["available"] is False


def test_devices_with_and_without_the_toolkit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver_pycuda, "query_devices", lambda wanted: {1: INFO})
    monkeypatch.setattr(device_query, "gpu_requirements", requirements_without)
    assert main(["device_query", "--gpu", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[3] == "Name:                          some GPU"
    assert shown.err == "Querying GPUs 1\n"
    monkeypatch.setattr(device_query, "gpu_requirements", lambda: requirements_without("toolkit"))
    assert main(["device_query", "--gpu", "1", "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["devices"][0]["device_id"] == 1 and found["missing"] == ["toolkit"]
    assert found["devices"][0]["multiprocessors"] == 132 and found["error"] is None
    assert "CUDA toolkit: missing (detail of toolkit); advice on toolkit" in shown.err


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ("", "--gpu: expected a number, a list or all, got nothing; name a GPU"),
        ("one", "--gpu: expected a number such as 0, a list such as 0,1, or all, got 'one'"),
    ],
)
def test_a_list_that_is_none_is_refused(
    gpus: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device_query", f"--gpu={gpus}"]) == 2
    assert words in capsys.readouterr().err
