"""Which backends the conformance table runs over: `pytest tests/conformance --backend NAME`."""

from __future__ import annotations

import pytest

from prototxt_gen.errors import DeviceError
from tests.conformance.device import Device, default_backends, open_device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        help="backend to hold to the oracle: cpu, numpy, cpu64, cpu-exact, emu, gpu; repeatable",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        named = metafunc.config.getoption("backend", default=None)
        gpu = [pytest.param(name, marks=pytest.mark.gpu) for name in ("gpu", "gpu-exact")]
        names = named or [*default_backends(), *gpu]
        metafunc.parametrize("device", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Device:
    try:
        return open_device(str(request.param))
    except DeviceError as cause:
        if request.config.getoption("backend", default=None):
            raise
        pytest.skip(str(cause))
