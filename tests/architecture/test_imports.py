"""The arrows of docs/ARCHITECTURE.md: who may import whom, read from the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime")

# prefix of a module -> prefixes it must not import
FORBIDDEN = {
    "prototxt_gen": ("data_prep", "runtime", "cuda_kernels"),
    "data_prep": ("runtime", "cuda_kernels"),
    "cuda_kernels": ("runtime", "data_prep"),
    "runtime.backend": (
        "runtime.layer",
        "runtime.layers",
        "runtime.net",
        "runtime.solvers",
        "runtime.blob",
        "runtime.parallel",
        "runtime.cli",
        "runtime.pycaffe",
        "runtime.evaluate",
    ),
    "runtime.layers": (
        "runtime.net",
        "runtime.solvers",
        "runtime.parallel",
        "runtime.cli",
        "runtime.pycaffe",
    ),
    "runtime.layer": ("runtime.net", "runtime.solvers"),
    "runtime.net": ("runtime.solvers", "runtime.parallel", "runtime.cli"),
    "runtime.paper": ("runtime.cli", "runtime.pycaffe"),
    "runtime.localise": ("runtime.cli", "runtime.pycaffe"),
    "runtime.features": ("runtime.cli", "runtime.pycaffe"),
    "runtime.solvers": ("runtime.parallel", "runtime.cli", "runtime.pycaffe"),
}
# third-party module -> the only modules that may import it
RESERVED = {
    "pycuda": ("runtime.backend.cuda.driver_pycuda",),
    "lmdb": ("data_prep.lmdb_io",),
}


def _modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports_of(source: str) -> set[str]:
    """Every module name a source text imports, inside functions as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def violations(module: str, imported: set[str]) -> list[str]:
    """The arrows a module must not have."""
    wrong = [
        f"{module} imports {name}"
        for prefix, banned in FORBIDDEN.items()
        if _within(module, prefix)
        for name in imported
        if any(_within(name, ban) for ban in banned)
    ]
    wrong += [
        f"{module} imports {name}, which belongs to {owners}"
        for reserved, owners in RESERVED.items()
        if module not in owners
        for name in imported
        if _within(name, reserved)
    ]
    return wrong


def test_every_arrow_points_the_right_way() -> None:
    wrong = [v for name, path in _modules() for v in violations(name, imports_of(path.read_text()))]
    assert wrong == []


def test_a_wrong_arrow_is_seen() -> None:
    source = "def f():\n    from runtime.net import Net\n    import lmdb\n"
    assert sorted(violations("runtime.layers.relu", imports_of(source))) == [
        "runtime.layers.relu imports lmdb, which belongs to ('data_prep.lmdb_io',)",
        "runtime.layers.relu imports runtime.net",
        "runtime.layers.relu imports runtime.net.Net",
    ]


_BLOCKED = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is absent on this machine")

sys.meta_path.insert(0, Refuse())
for name in {names}:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("blocked", [{"pycuda", "lmdb", "matplotlib", "sklearn", "h5py", "onnx"}])
def test_every_module_imports_without_optional_packages(blocked: set[str]) -> None:
    names = [name for name, _ in _modules() if not name.endswith("__main__")]
    script = _BLOCKED.format(blocked=blocked, names=names)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_files_and_functions_stay_small() -> None:
    too_large = []
    for _, path in _modules():
        text = path.read_text()
        if text.count("\n") > 500:
            too_large.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                if lines > 60:
                    too_large.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert too_large == []
