"""The pages that are generated from the source, and the build of the site."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import api_pages
import docstrings
import layer_page
import pytest
import verb_pages

from runtime.cli.main import verb_parsers, verbs
from runtime.layers.factory import layer_class, layer_type_list
from tests.docs.pages import ROOT


def test_every_verb_has_a_page_with_its_flags() -> None:
    pages = verb_pages.pages()
    assert set(pages) == {"index.md", *(f"{name}.md" for name in verbs())}
    for name, parser in verb_parsers().items():
        for child in (parser, *verb_pages.subparsers(parser).values()):
            for flag in set(child._option_string_actions) - {"-h", "--help"}:
                assert f"`{flag}" in pages[f"{name}.md"], (name, flag)


@pytest.mark.parametrize(
    ("type_name", "places"),
    [
        ("InnerProduct", ("compiled", "kernel")),
        ("ReLU", ("compiled", "kernel")),
        ("Softmax", ("compiled", "kernel")),
        ("Convolution", ("compiled, NumPy", "kernel, host")),  # N-dimensional ones use the host
        ("Sigmoid", ("compiled", "kernel")),
        ("Scale", ("compiled", "kernel")),
        ("MVN", ("NumPy", "host")),
        ("Data", ("NumPy", "host")),
        ("Flatten", ("memory", "memory")),
    ],
)
def test_where_a_layer_runs(type_name: str, places: tuple[str, str]) -> None:
    assert layer_page.places(layer_page.work_of(layer_class(type_name, type_name))) == places


def test_every_layer_has_a_section_with_its_fields() -> None:
    page = layer_page.page()
    assert all(f"\n## {name}\n" in page for name in layer_type_list())
    convolution = page.partition("\n## Convolution\n")[2].partition("\n## ")[0]
    assert "| `num_output` | uint32 |" in convolution
    assert "Not in BVLC Caffe" not in convolution
    axpy = page.partition("\n## Axpy\n")[2].partition("\n## ")[0]
    assert "Not in BVLC Caffe; from SENet, NVIDIA Caffe and Intel Caffe." in axpy
    assert "| `bias_term` | bool | true |" in convolution


def test_every_public_module_is_in_the_python_reference() -> None:
    pages = api_pages.pages(ROOT)
    assert "automodule:: runtime.solvers.solver" in pages["runtime.solvers.md"]
    assert "runtime.deprecated.md" not in pages


def test_docstrings_become_restructured_text() -> None:
    lines = [
        "Read `x` of a*b_.",
        "",
        "Raises:",
        "    DataError: no `x`.",
        "",
        "A table:",
        "    a  b",
    ]
    assert docstrings.to_rst(lines) == [
        "Read ``x`` of a\\*b\\_.",
        "",
        "Raises:",
        "    DataError: no ``x``.",
        "",
        "A table:",
        "",
        "::",
        "",
        "    a  b",
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="needs the extra [docs]")
def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    options = ["--fail-on-warning", "--keep-going", "-q", "-d", str(tmp_path / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text()
        assert 'src="http' not in html and 'rel="stylesheet" href="http' not in html, page
