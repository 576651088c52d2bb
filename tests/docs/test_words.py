"""The documentation is written in plain technical English."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page_id, pages, prose

MANNERISMS = re.compile(
    r"\b("
    r"says?|said|saying|tells?|told|telling|stands?|stood|standing|beside|besides|anew|"
    r"nobody|somebody|whoever|whatever|at hand|alive|held against|hold against|be had|"
    r"nothing but|in passing|on end|leans?|leant|goes on|go on|went on|gone on|wants|knows|"
    r"the house|never shows|owes?|owed|taught|the way of|"
    r"long since|looks at|looked at|looks into|old files|up to date"
    r")\b",
    re.IGNORECASE,
)
PAGES = [*pages(), ROOT / "CHANGELOG.md"]


def mannerisms(text: str) -> list[str]:
    """The mannerisms in a page's prose."""
    return [match[0] for match in MANNERISMS.finditer(prose(text))]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_no_mannerisms(path: Path) -> None:
    assert mannerisms(path.read_text()) == []


def test_mannerisms_are_found_in_prose_only() -> None:
    assert mannerisms("It says so.\nNobody `says` it.\n```sh\nsay\n```\n") == ["says", "Nobody"]
