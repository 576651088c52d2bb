"""MkDocs hooks: add the generated reference pages to a build."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import api_pages
import layer_page
import verb_pages
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def pages() -> dict[str, str]:
    """Every generated page: its path below docs/ and its Markdown."""
    return {
        **{f"reference/verbs/{name}": page for name, page in verb_pages.pages().items()},
        "reference/layers.md": layer_page.page(),
        **{f"reference/api/{name}": page for name, page in api_pages.pages(ROOT).items()},
    }


def on_config(config: Any) -> Any:
    """Fill in the folders of generated pages that `nav` names."""
    paths = sorted(pages())

    def expand(entry: Any) -> Any:
        if isinstance(entry, list):
            return [expand(item) for item in entry]
        if isinstance(entry, dict):
            return {title: expand(value) for title, value in entry.items()}
        if isinstance(entry, str) and entry.endswith("/"):
            return [path for path in paths if path.startswith(entry)]
        return entry

    config.nav = expand(config.nav)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files
