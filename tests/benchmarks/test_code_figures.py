"""The figures of the source code: what counts as complex, forwarding, repeated and cyclic."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return pytest.importorskip("code_figures")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return 1", 1),
        ("if a: pass\n elif b: pass\n else: pass", 3),
        ("return a and b and c", 3),
        ("return [x for x in a if x if not x]", 4),
        ("for x in a: pass\n else: pass", 3),
        ("try: pass\n except E: pass\n except F: pass\n else: pass", 4),
        ("def g():\n  if a: pass\n return g", 2),
    ],
)
def test_complexity_counts_decisions(figures: Any, body: str, expected: int) -> None:
    tree = ast.parse(f"def f():\n {body}")
    assert figures.complexity(tree.body[0]) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("def f(self, a, b): return self.x.g(a, b)", True),
        ('def f(self):\n  """Text."""\n  self.x.y.close()', True),
        ("def f(self, a, b): return self.x.g(b, a)", False),
        ("def f(self, a): return self.g(a)", False),
        ("def f(self, a): return self.x.g(a + 1)", False),
        ("def f(self, a):\n  self.n += 1\n  return self.x.g(a)", False),
        ("def f(a): return g.h(a)", False),
    ],
)
def test_forwarding_passes_the_own_arguments(figures: Any, method: str, expected: bool) -> None:
    assert figures.forwards(ast.parse(method).body[0]) is expected


def test_lines_of_code_are_without_comments_and_docstrings(figures: Any) -> None:
    source = (
        '"""Module."""\n\n# comment\nx = """a\nb"""\n\n\ndef f():\n    """F."""\n    return x\n'
    )
    assert list(figures.code_lines(source)) == [4, 5, 8, 10]


def test_repeated_passages_count_once_per_pair(figures: Any, tmp_path: Path) -> None:
    lines = "".join(f"x{i} = {i}\n" for i in range(8))
    for name, text in {"a.py": lines, "b.py": f"y = 0\n{lines}", "c.py": lines[:20]}.items():
        path = tmp_path / "runtime" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert figures.duplicate_pairs(tmp_path) == 1


def test_cycles_floors_and_rooms(figures: Any) -> None:
    graph = {
        "runtime/__init__.py": {"runtime/net/a.py"},
        "runtime/net/a.py": {"runtime/net/b.py", "runtime/core/c.py"},
        "runtime/net/b.py": {"runtime/net/a.py"},
        "runtime/core/c.py": {"prototxt_gen/d.py"},
        "prototxt_gen/d.py": set(),
    }
    assert figures.cycles(graph) == [["runtime/net/a.py", "runtime/net/b.py"]]
    rooms = figures.rooms(graph)
    assert rooms == {
        "runtime/__init__.py": {"runtime/net"},
        "runtime/net": {"runtime/core"},
        "runtime/core": set(),
    }
    assert figures.floors(rooms) == 3
    assert figures.floors(graph) == 4
