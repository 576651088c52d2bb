"""Which backends the conformance table runs over: `pytest tests/conformance --backend NAME`."""

from __future__ import annotations

import pytest

from tests.conformance.device import Device, default_backends, open_device


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        help="backend to hold to the oracle: cpu, numpy, cpu64, cpu-exact, emu, gpu; repeatable",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        names = metafunc.config.getoption("backend", default=None) or default_backends()
        metafunc.parametrize("device", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Device:
    return open_device(str(request.param))
