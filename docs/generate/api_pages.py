"""The pages of the Python reference: one for each package folder, filled by autodoc."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

PACKAGES = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime")


def pages(root: Path) -> dict[str, str]:
    """Markdown by file name: one page for each folder of modules, and a list of them."""
    folders = sorted(
        {path.parent for package in PACKAGES for path in (root / package).rglob("*.py")}
    )
    index = ["# Python", "", "| Package | |", "|---|---|"]
    found = {}
    for folder in folders:
        package = ".".join(folder.relative_to(root).parts)
        if package == "runtime.deprecated":
            continue
        modules = [package, *_modules(folder, package)]
        modules = [name for name in modules if _has_public_names(root, name)]
        if not modules:
            continue
        found[f"{package}.md"] = _page(package, modules)
        index.append(f"| [`{package}`]({package}.md) | {_summary(folder / '__init__.py')} |")
    return {"index.md": "\n".join([*index, *toctree(found)]) + "\n", **found}


def toctree(names: Iterable[str]) -> list[str]:
    """The lines of a hidden table of contents."""
    return ["", "```{toctree}", ":hidden:", "", *names, "```"]


def _modules(folder: Path, package: str) -> list[str]:
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return [f"{package}.{name}" for name in names]


def _has_public_names(root: Path, module: str) -> bool:
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    kinds = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(node, kinds) and not node.name.startswith("_") for node in body)


def _page(package: str, modules: list[str]) -> str:
    lines = [f"# {package}"]
    for module in modules:
        lines += ["", f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```"]
    return "\n".join(lines) + "\n"


def _summary(path: Path) -> str:
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
