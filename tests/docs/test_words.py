"""The documentation is written in plain technical English."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.mannerisms import mannerisms
from tests.docs.pages import ROOT, page_id, pages, prose

PAGES = [*pages(), ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_no_mannerisms(path: Path) -> None:
    assert mannerisms(prose(path.read_text())) == []


def test_mannerisms_are_found_in_prose_only() -> None:
    text = "It says so.\nNobody `says` it.\n```sh\nsay\n```\n"
    assert mannerisms(prose(text)) == ["says", "Nobody"]
