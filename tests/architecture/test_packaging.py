"""The metadata of the package, and the files of its source distribution."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_licence_is_an_spdx_expression(project: dict[str, Any]) -> None:
    metadata = project["project"]
    assert metadata["license"] == "BSD-2-Clause"
    assert [(ROOT / name).is_file() for name in metadata["license-files"]] == [True]
    assert not [name for name in metadata["classifiers"] if name.startswith("License ::")]


def test_build_requirements_have_bounds_on_both_sides(project: dict[str, Any]) -> None:
    requirements = project["build-system"]["requires"]
    assert requirements
    for requirement in requirements:
        assert re.search(r">=\d", requirement) and re.search(r"<\d", requirement), requirement
    # The first version that accepts SPDX expressions.
    assert int(re.search(r"setuptools>=(\d+)", requirements[0])[1]) >= 77


def test_there_are_links(project: dict[str, Any]) -> None:
    urls = project["project"]["urls"]
    assert urls and all(url.startswith("https://") for url in urls.values())


@pytest.mark.slow
def test_the_source_distribution_has_tests_and_docs(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\0")
    copy = tmp_path / "project"
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    if not copy.exists():
        pytest.skip("not a checkout of git")
    script = "from setuptools.build_meta import build_sdist as b; b('dist')"
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", "-c", script],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SetuptoolsDeprecationWarning" not in done.stderr
    (archive,) = (copy / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as stream:
        names = {name.partition("/")[2] for name in stream.getnames()}
    left_out = {name for name in tracked if name} - names - {".gitignore"}
    assert left_out == set()
