"""The digest of the C++ sources, which setup.py stores in the compiled library.

This file imports nothing of the project, because setup.py loads it alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def source_digest(folder: Path) -> str:
    """A digest of the C++ sources in a folder; '' if there are none, as in an installation."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in (".cpp", ".h"))
    if not paths:
        return ""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
