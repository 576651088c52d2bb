"""Files that scripts name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from prototxt_gen.destination import current_folder
from runtime.pycaffe.errors import MissingFileError

PathLike: TypeAlias = "str | os.PathLike[str]"


def require_file(path: PathLike) -> Path:
    """The path of a file that can be opened.

    Raises:
        MissingFileError: the file cannot be opened; also a RuntimeError, as in pycaffe.
    """
    try:
        with Path(path).open("rb"):
            return Path(path)
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else cause
        raise MissingFileError(
            f"Could not open file {path}: {reason}; expected a file that can be read; check the "
            f"path (the current folder is {current_folder()})"
        ) from cause
