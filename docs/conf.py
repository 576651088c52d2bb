"""Sphinx: the pages in docs/, and reference pages that are generated from the source.

Sphinx with MyST and Furo: maintained, checks every link, and its pages load nothing from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "generate"), str(DOCS.parent)]

import api_pages  # noqa: E402
import docstrings  # noqa: E402
import layer_page  # noqa: E402
import verb_pages  # noqa: E402

project = "verydeep"
author = copyright = "the verydeep authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["generate"]
html_theme = "furo"
html_title = "verydeep"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 4
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "ignore-module-all": True,
    "member-order": "bysource",
    "undoc-members": True,
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_custom_sections = ["Shapes", "Units", "Source", "Paper", "Caffe"]
napoleon_use_rtype = False
suppress_warnings = ["ref.python"]  # a name in a signature that several modules define
toc_object_entries = False  # the navigation lists modules; with every function it is slow to build


def write_reference(app: Any) -> None:
    """Write the generated pages, and keep the times of those that did not change."""
    folder = DOCS / "reference" / "generated"
    pages = {
        **{f"verbs/{name}": page for name, page in verb_pages.pages().items()},
        "layers.md": layer_page.page(),
        **{f"api/{name}": page for name, page in api_pages.pages(DOCS.parent).items()},
    }
    for path in set(folder.rglob("*.md")) - {folder / name for name in pages}:
        path.unlink()
    for name, page in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != page:
            path.write_text(page, encoding="utf-8")


def convert_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: Any) -> None:
    """Docstrings are Markdown; autodoc expects reStructuredText."""
    lines[:] = docstrings.to_rst(list(lines))


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", convert_docstring, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
