"""A pytest plugin that writes each failure when it happens, for runs that may be cut.

VERYDEEP_FAILURES=failures.txt python -m pytest -p failures_now ...
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Append the traceback of a failed test to the file that the environment names."""
    path = os.environ.get("VERYDEEP_FAILURES")
    if path and report.failed:
        with Path(path).open("a", encoding="utf-8") as out:
            out.write(f"{report.nodeid} ({report.when})\n{report.longreprtext}\n\n")
