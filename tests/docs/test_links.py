"""Links between pages, images and files of the repository lead to something that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, page_id, pages

GENERATED = "reference/generated/"
PAGES = [*pages(), ROOT / "CHANGELOG.md"]


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_local_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target).resolve()
        docs = file.relative_to(ROOT / "docs").as_posix() if (ROOT / "docs") in file.parents else ""
        assert file.exists() or docs.startswith(GENERATED), f"{page_id(path)}: {target}"


def test_paths_of_pages_in_the_source_exist() -> None:
    for folder in ("runtime", "prototxt_gen", "data_prep", "cuda_kernels", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"docs/[\w/.-]+\.md", file.read_text()):
                assert (ROOT / name).exists(), f"{file}: {name}"
