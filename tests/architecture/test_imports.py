"""The import rules of docs/explanation/architecture.md, checked on every import in the source."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime")

# A module imports from its own entry and from lower floors only. A module belongs to the longest
# entry that contains it.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("prototxt_gen",),
    ("cuda_kernels", "data_prep", "runtime/logs", "runtime/process"),
    ("runtime/backend",),
    ("runtime/backend/cpu", "runtime/backend/cuda"),
    ("runtime/backend/registry.py",),
    ("runtime/core",),
    ("runtime/layers",),
    ("runtime/net",),
    ("runtime/weights",),
    ("runtime/solvers",),
    ("runtime/analysis", "runtime/bundle"),
    ("runtime/evaluate", "runtime/export", "runtime/inference", "runtime/parallel"),
    ("runtime/job", "runtime/pycaffe", "runtime/serving", "runtime/visual"),
    ("runtime/paper",),
    ("runtime/paper/classification", "runtime/paper/features", "runtime/paper/localisation"),
    ("runtime/cli",),
    ("runtime", "runtime/deprecated"),
)
FLOOR_OF = {entry: floor for floor, entries in enumerate(FLOORS) for entry in entries}

# third-party module -> the only modules that may import it
RESERVED = {
    "pycuda": ("runtime.backend.cuda.driver_pycuda",),
    "lmdb": ("data_prep.lmdb_io",),
}

Graph = Mapping[str, set[str]]
"""The imports of each file; files are paths from the root."""


def sources(root: Path = ROOT) -> dict[str, Path]:
    """Module names and their files."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(source: str, package: str = "") -> set[str]:
    """The names that a source text imports, wherever in the text.

    `from a import b` gives a.b, which is a module or an attribute of one. `package` resolves
    relative imports.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *base.split(".")]).strip(".")
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            names.update(_imported_by_call(node, package))
    return names


def _imported_by_call(node: ast.Call, package: str) -> Iterator[str]:
    """The module that `import_module` or `__import__` is called with, if it is written there."""
    function = node.func.attr if isinstance(node.func, ast.Attribute) else None
    function = node.func.id if isinstance(node.func, ast.Name) else function
    if function not in ("import_module", "__import__") or not node.args:
        return
    argument = node.args[0]
    if isinstance(argument, ast.JoinedStr) and argument.values:
        argument = argument.values[0]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        name = argument.value
        yield (package + name if name.startswith(".") else name).rstrip(".")


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Every import of one of our files by another."""
    modules = sources(root)
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        targets = {_file_of(imported, modules) for imported in imports_of(_text(path), package)}
        graph[_relative(path, root)] = {
            _relative(target, root) for target in targets if target not in (None, path)
        }
    return graph


def _file_of(name: str, modules: Mapping[str, Path]) -> Path | None:
    """The file of a module, or of the module that an attribute is imported from."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return modules.get(name)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _relative(path: Path | None, root: Path) -> str:
    assert path is not None
    return path.relative_to(root).as_posix()


def entry_of(file: str) -> str:
    """The entry of FLOORS that a file belongs to."""
    while file not in FLOOR_OF:
        file = file.rpartition("/")[0]
        assert file, "every package has an entry"
    return file


def wrong_imports(graph: Graph) -> list[str]:
    """Imports of a higher floor, or of another folder on the same floor."""
    return [
        f"{file} imports {target}"
        for file, targets in graph.items()
        for target in sorted(targets)
        if entry_of(file) != entry_of(target)
        and FLOOR_OF[entry_of(file)] <= FLOOR_OF[entry_of(target)]
    ]


def cycle(graph: Graph) -> list[str]:
    """Files that import each other in a circle; empty if there are none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_imports_go_to_lower_floors() -> None:
    assert wrong_imports(import_graph()) == []


def test_no_file_imports_itself_through_others() -> None:
    assert cycle(import_graph()) == []


def test_libraries_are_imported_by_their_owners_only() -> None:
    wrong = [
        f"{module} imports {name}, which belongs to {owners}"
        for module, path in sources().items()
        for name in imports_of(_text(path))
        for library, owners in RESERVED.items()
        if name.split(".")[0] == library and module not in owners
    ]
    assert wrong == []


def test_every_folder_has_a_floor() -> None:
    folders = {_relative(path.parent, ROOT) for path in sources().values()}
    assert {entry for entry in FLOOR_OF if not (ROOT / entry).exists()} == set()
    # Subfolders belong to the folder that contains them, except those of runtime itself.
    assert {folder for folder in folders if entry_of(folder) == "runtime"} == {"runtime"}


def test_the_documented_table_is_this_one() -> None:
    text = _text(ROOT / "docs" / "explanation" / "architecture.md")
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \| \S", text, flags=re.M)
    assert [(int(floor), folder) for floor, folder in rows] == [
        (floor, entry) for floor, entries in enumerate(FLOORS) for entry in entries
    ]


def test_the_top_level_of_runtime_holds_the_entry_points_only() -> None:
    assert {path.name for path in (ROOT / "runtime").glob("*.py")} == {"__init__.py", "__main__.py"}


def _tree(root: Path, files: Mapping[str, str]) -> dict[str, set[str]]:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return import_graph(root)


WRITTEN = {
    "top": "from runtime.net.net import Net\n",
    "package": "from runtime.net import Net\n",
    "module": "from runtime.net import net\n",
    "plain": "import runtime.net.net as core\n",
    "relative": "from ..net.net import Net\n",
    "relative_module": "from ..net import net\n",
    "function": "def f():\n    from runtime.net.net import Net\n",
    "types": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from runtime.net.net import Net\n"
    ),
    "guarded": "try:\n    import runtime.net.net\nexcept ImportError:\n    pass\n",
    "dynamic": "import importlib\nimportlib.import_module('runtime.net.net')\n",
    "plugins": "from importlib import import_module\nimport_module(f'runtime.net.{__name__}')\n",
}


@pytest.mark.parametrize("way", sorted(WRITTEN))
def test_a_wrong_import_is_found_however_it_is_written(way: str, tmp_path: Path) -> None:
    files = {
        "runtime/__init__.py": "",
        "runtime/net/__init__.py": "",
        "runtime/net/net.py": "class Net: ...\n",
        "runtime/layers/relu.py": WRITTEN[way],
    }
    target = "runtime/net/net.py"
    if way in ("package", "plugins"):
        target = "runtime/net/__init__.py"
    assert wrong_imports(_tree(tmp_path, files)) == [f"runtime/layers/relu.py imports {target}"]


@pytest.mark.parametrize(
    ("file", "text", "target"),
    [
        ("prototxt_gen/a.py", "import data_prep.b", "data_prep/b.py"),
        ("data_prep/b.py", "import cuda_kernels.c", "cuda_kernels/c.py"),
        ("runtime/weights/w.py", "import runtime.solvers.s", "runtime/solvers/s.py"),
        ("runtime/weights/w.py", "import runtime.export.e", "runtime/export/e.py"),
        ("runtime/backend/base.py", "import runtime.backend.cpu.d", "runtime/backend/cpu/d.py"),
        ("runtime/backend/cpu/d.py", "import runtime.backend.cuda.g", "runtime/backend/cuda/g.py"),
        ("runtime/paper/p.py", "import runtime.paper.features.f", "runtime/paper/features/f.py"),
        ("runtime/paper/p.py", "import runtime.cli.v", "runtime/cli/v.py"),
        ("runtime/cli/v.py", "import runtime", "runtime/__init__.py"),
    ],
)
def test_each_border_is_guarded(file: str, text: str, target: str, tmp_path: Path) -> None:
    files = {target: "", "runtime/__init__.py": "", file: text}
    assert wrong_imports(_tree(tmp_path, files)) == [f"{file} imports {target}"]


def test_an_import_of_a_lower_floor_is_allowed(tmp_path: Path) -> None:
    files = {
        "runtime/backend/cpu/d.py": "",
        "runtime/backend/registry.py": "import runtime.backend.cpu.d",
        "runtime/paper/p.py": "",
        "runtime/paper/features/f.py": "from runtime.paper import p",
    }
    assert wrong_imports(_tree(tmp_path, files)) == []


def test_a_cycle_through_types_and_functions_is_found(tmp_path: Path) -> None:
    files = {
        "runtime/net/a.py": "from runtime.net.b import B",
        "runtime/net/b.py": "def f():\n    from runtime.net.c import C",
        "runtime/net/c.py": "import typing\nif typing.TYPE_CHECKING:\n    import runtime.net.a",
    }
    graph = _tree(tmp_path, files)
    assert set(cycle(graph)) == set(files)
    assert cycle(_tree(tmp_path, {"runtime/net/c.py": ""})) == []


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


@pytest.mark.parametrize(
    "blocked",
    [{"pycuda", "lmdb", "matplotlib", "sklearn", "h5py", "onnx", "fastapi", "tensorboardX"}],
)
def test_every_module_imports_without_optional_packages(blocked: set[str]) -> None:
    names = [name for name in sources() if not name.endswith("__main__")]
    script = _BLOCKED.format(blocked=blocked, names=names)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_files_and_functions_stay_small() -> None:
    too_large = []
    for path in sources().values():
        text = _text(path)
        file = _relative(path, ROOT)
        if text.count("\n") > 500:
            too_large.append(f"{file}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno
                if lines > 60:
                    too_large.append(f"{file}: {node.name} has {lines} lines")
    assert too_large == []
