"""Figures of the structure of a source tree: imports, forwarding, repetition, size, complexity."""

from __future__ import annotations

import ast
import io
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

PRODUCT = ("prototxt_gen", "cuda_kernels", "data_prep", "runtime")
RUN = 6
"""Lines that make a repeated passage."""
COMMON = 8
"""Passages in more places than this are idioms, and are not counted as repetition."""
COMPLEX = 15
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.comprehension, ast.match_case)

Graph = Mapping[str, set[str]]


def product_files(root: Path) -> list[Path]:
    """The Python files of the product."""
    return [path for name in PRODUCT for path in sorted((root / name).rglob("*.py"))]


def code_lines(source: str) -> dict[int, str]:
    """The lines with code, by number: without blank lines, comments and docstrings."""
    strings = _docstring_lines(ast.parse(source))
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    numbers: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*skipped, tokenize.ENDMARKER):
            numbers.update(range(token.start[0], token.end[0] + 1))
    lines = source.splitlines()
    return {n: " ".join(lines[n - 1].split()) for n in sorted(numbers - strings)}


def _docstring_lines(tree: ast.AST) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and _is_docstring(node):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions and methods of a module, also nested ones."""
    return (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))


def complexity(function: ast.AST) -> int:
    """1 plus the decisions of a function: branches, loops, handlers, conditions, and/or.

    Nested functions are part of it; radon counts in the same way.
    """
    total = 1
    for node in ast.walk(function):
        if isinstance(node, _BRANCHES):
            total += 1 + (len(node.ifs) if isinstance(node, ast.comprehension) else 0)
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            total += 1 + bool(node.orelse)
        elif isinstance(node, ast.BoolOp):
            total += len(node.values) - 1
        elif isinstance(node, ast.Try):
            total += bool(node.orelse)
    return total


def forwards(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method only passes its own arguments, in order, to a method of an attribute."""
    body = [node for node in function.body if not _is_docstring(node)]
    if len(body) != 1 or function.decorator_list:
        return False
    value = getattr(body[0], "value", None) if isinstance(body[0], (ast.Return, ast.Expr)) else None
    if not isinstance(value, ast.Call) or value.keywords:
        return False
    own = [arg.arg for arg in function.args.args]
    passed = [arg.id if isinstance(arg, ast.Name) else None for arg in value.args]
    return bool(own) and own[0] == "self" and passed == own[1:] and _is_of_attribute(value.func)


def _is_docstring(node: ast.stmt) -> bool:
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def _is_of_attribute(called: ast.expr) -> bool:
    """Whether an expression is self.a.b, with any further attributes."""
    depth = 0
    while isinstance(called, ast.Attribute):
        called, depth = called.value, depth + 1
    return depth >= 2 and isinstance(called, ast.Name) and called.id == "self"


def duplicate_pairs(root: Path) -> int:
    """Pairs of places with the same RUN or more lines of code; each longest passage counts once.

    Import statements do not count.
    """
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for path in product_files(root):
        lines = [
            line
            for line in code_lines(path.read_text(encoding="utf-8")).values()
            if not line.startswith(("import ", "from "))
        ]
        for start in range(len(lines) - RUN + 1):
            windows[tuple(lines[start : start + RUN])].append((str(path), start))
    pairs = {
        pair
        for places in windows.values()
        if 1 < len(places) <= COMMON
        for pair in combinations(places, 2)
        if not _overlap(*pair)
    }
    return sum(((a, i - 1), (b, j - 1)) not in pairs for (a, i), (b, j) in pairs)


def _overlap(first: tuple[str, int], second: tuple[str, int]) -> bool:
    return first[0] == second[0] and abs(first[1] - second[1]) < RUN


def rooms(graph: Graph) -> dict[str, set[str]]:
    """The imports between the folders of runtime; a file at its top level is a room of its own."""
    result: dict[str, set[str]] = {}
    for file, targets in graph.items():
        if file.startswith("runtime/"):
            own = result.setdefault(_room(file), set())
            own.update(_room(target) for target in targets if target.startswith("runtime/"))
            own.discard(_room(file))
    return result


def _room(file: str) -> str:
    folder = file.rpartition("/")[0]
    return file if folder == "runtime" else folder


def cycles(graph: Graph) -> list[list[str]]:
    """The groups of nodes that import each other."""
    reached = {node: _reachable(graph, node) for node in graph}
    groups = {
        tuple(sorted(other for other in reached[node] if node in reached.get(other, ())))
        for node in graph
    }
    return sorted(list(group) for group in groups if len(group) > 1)


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    queue = [start]
    while queue:
        for target in graph.get(queue.pop(), ()):
            if target not in seen:
                seen.add(target)
                queue.append(target)
    return seen


def floors(graph: Graph) -> int:
    """The length of the longest chain of imports, in which the nodes of a cycle are one."""
    merged = {node: node for node in graph}
    for group in cycles(graph):
        merged.update(dict.fromkeys(group, group[0]))
    heights: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in heights:
            members = [n for n in graph if merged[n] == node]
            targets = {merged[t] for n in members for t in graph[n] if t in merged} - {node}
            heights[node] = 1 + max(map(height, targets), default=0)
        return heights[node]

    return max(map(height, set(merged.values())), default=0)


def code_figures(root: Path) -> dict[str, int]:
    """Lines of code, functions, complex functions and forwarding methods of the product."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in product_files(root)}
    every = [function for tree in trees.values() for function in functions(tree)]
    return {
        "files": len(trees),
        "functions": len(every),
        "lines_of_code": sum(len(code_lines(path.read_text(encoding="utf-8"))) for path in trees),
        "complex_functions": sum(complexity(function) > COMPLEX for function in every),
        "forwarding_methods": sum(forwards(function) for function in every),
        "duplicate_pairs": duplicate_pairs(root),
    }
