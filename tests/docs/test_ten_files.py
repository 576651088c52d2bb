"""The page "Read these ten files" names ten files that exist and are short."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

PAGE = ROOT / "docs/explanation/ten-files.md"
MOST_LINES = 2000


def test_the_ten_files_are_short() -> None:
    names = re.findall(r"^## \d+\. `([^`]+)`", PAGE.read_text(), re.MULTILINE)
    assert len(names) == len(set(names)) == 10
    lines = {name: len((ROOT / name).read_text().splitlines()) for name in names}
    assert sum(lines.values()) < MOST_LINES, lines
