"""What the program has to know of a layer type is in the class of the type."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.layers.factory import layer_type_list

ROOT = Path(__file__).resolve().parents[2]
TYPES = frozenset(layer_type_list())

COMPARED = {
    "runtime/export/onnx_sizes.py": {"Reshape", "Slice"},  # operators of ONNX
    "runtime/job/results.py": {"Accuracy"},  # in a net that the job itself generates
    "runtime/paper/localisation/box_net.py": {"Pooling"},  # in the paper's nets
    "runtime/weights/caffemodel.py": {"Input"},  # what the V1 format has as fields of the net
}
"""Single types that a module may compare with, and why they are no property of a layer."""

OPERATORS = {"runtime/export/torch_ops.py"}
"""Modules with tables of ONNX's operators, some of which have the names of layer types."""

IMPORTED = {
    "runtime/pycaffe/layer.py": {"python_layer"},  # hands out the user's own object
    "runtime/pycaffe/net.py": {"memory_data"},  # set_input_arrays is for this type in Caffe
}
"""Layer modules that a module may import by name, except the factory."""


def sources() -> dict[str, ast.Module]:
    files = sorted((ROOT / "runtime").rglob("*.py"))
    paths = {path.relative_to(ROOT).as_posix(): path for path in files}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if not name.startswith("runtime/layers/")
    }


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return sources()


def type_names(node: ast.AST) -> set[str]:
    """The layer types among the string constants directly below a node."""
    children = [*ast.iter_child_nodes(node)]
    return {
        str(child.value)
        for child in children
        if isinstance(child, ast.Constant) and child.value in TYPES
    }


def tables(tree: ast.AST) -> Iterator[set[str]]:
    """Collections that list two layer types or more."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict):
            names = type_names(node)
            if len(names) > 1:
                yield names


def compared(tree: ast.AST) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found |= type_names(node)
    return found


def imported(tree: ast.AST) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    layers = {name.split(".")[2] for name in modules if name.startswith("runtime.layers.")}
    return layers - {"factory"}


def test_no_table_of_layer_types(trees: dict[str, ast.Module]) -> None:
    listed = {name: found for name, tree in trees.items() if (found := list(tables(tree)))}
    assert set(listed) == OPERATORS


def test_types_that_are_compared(trees: dict[str, ast.Module]) -> None:
    assert {name: found for name, tree in trees.items() if (found := compared(tree))} == COMPARED


def test_layer_modules_that_are_imported(trees: dict[str, ast.Module]) -> None:
    found = {name: layers for name, tree in trees.items() if (layers := imported(tree))}
    assert {name: layers & {*_layer_modules()} for name, layers in found.items()} == IMPORTED


def _layer_modules() -> list[str]:
    return [path.stem for path in (ROOT / "runtime/layers").glob("*.py")]


@pytest.mark.parametrize(
    ("source", "check"),
    [
        ('KNOWN = ("ReLU", "Softmax")', lambda tree: list(tables(tree)) == [{"ReLU", "Softmax"}]),
        ('CONVERTERS = {"ReLU": f, "LRN": g}', lambda tree: list(tables(tree)) != []),
        ('x = layer.type == "ReLU"', lambda tree: compared(tree) == {"ReLU"}),
        ("from runtime.layers.relu import ReLULayer", lambda tree: imported(tree) == {"relu"}),
        ("def f():\n    import runtime.layers.lrn", lambda tree: imported(tree) == {"lrn"}),
        ("from runtime.layers import lrn", lambda tree: imported(tree) == {"lrn"}),
    ],
)
def test_the_checks_find_what_they_look_for(source: str, check: object) -> None:
    assert callable(check) and check(ast.parse(source))
