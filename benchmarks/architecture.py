"""Figures of the architecture in two revisions, which docs/explanation/benchmarks.md prints.

    python benchmarks/architecture.py --before bd4cbdb --after HEAD

Each revision is exported from git into a temporary folder and measured there. `cpu_report.py`
copies the table into the document.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from code_figures import code_figures, cycles, floors, rooms
from record import RESULTS, ROOT, write_record

# The tests' readers of imports and of prose are not in an installed package.
sys.path.append(str(ROOT))
from tests.architecture.mannerisms import mannerisms, source_files, texts_of
from tests.architecture.test_imports import import_graph
from tests.docs.pages import prose

BEFORE = "bd4cbdb"
HOPS = ROOT / "benchmarks" / "workers" / "hops.py"
OUT = RESULTS / "architecture.json"


def export(revision: str, folder: Path) -> None:
    """Write the files of a revision into a folder."""
    command = ["git", "-C", str(ROOT), "archive", revision]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")


def mannerism_counts(root: Path) -> dict[str, int]:
    """Mannerisms in the texts of sources and in the prose of pages, by top-level folder."""
    counts = {"product": 0, "documentation": 0, "tests": 0}
    for path in source_files(root):
        top = path.relative_to(root).parts[0]
        key = {"tests": "tests", "docs": "documentation"}.get(top, "product")
        if path.name != "test_words.py":
            counts[key] += sum(len(mannerisms(text)) for _, text in texts_of(path))
    pages = [path for path in root.rglob("*.md") if "tests" not in path.relative_to(root).parts]
    counts["documentation"] += sum(
        len(mannerisms(prose(path.read_text(encoding="utf-8")))) for path in pages
    )
    return counts


def hops(root: Path) -> dict[str, dict[str, int]]:
    """See workers/hops.py."""
    done = subprocess.run(
        [sys.executable, str(HOPS), str(root)],
        env={**os.environ, "PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def measure(revision: str) -> dict[str, Any]:
    """All figures of a revision."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        export(revision, root)
        graph = import_graph(root)
        folders = rooms(graph)
        return {
            "revision": _commit(revision),
            "files_at_the_top_of_runtime": len(list((root / "runtime").glob("*.py"))),
            "folders_of_runtime": len(folders),
            "floors": floors(folders),
            "arrows": sum(len(targets) for targets in folders.values()),
            "cycles": len(cycles(graph)),
            **code_figures(root),
            "mannerisms": mannerism_counts(root),
            "hops": hops(root),
        }


def _commit(revision: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", revision]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="revision (default: %(default)s)")
    parser.add_argument("--after", default="HEAD", help="revision (default: %(default)s)")
    parser.add_argument("--json", type=Path, default=OUT, help="output (default: %(default)s)")
    args = parser.parse_args()
    write_record(args.json, {"before": measure(args.before), "after": measure(args.after)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
