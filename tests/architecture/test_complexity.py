"""Functions of the product have a complexity of at most 15."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_functions_are_simple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    figures: Any = pytest.importorskip("code_figures")
    complexities = {
        f"{path.relative_to(ROOT).as_posix()}: {function.name}": figures.complexity(function)
        for path in figures.product_files(ROOT)
        for function in figures.functions(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(complexities) > 1000
    assert {name: n for name, n in complexities.items() if n > figures.COMPLEX} == {}
