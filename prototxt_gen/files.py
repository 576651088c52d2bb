"""Files replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from prototxt_gen.errors import VerydeepError


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "wb", error: type[VerydeepError] = VerydeepError
) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it when the block ends well.

    The bytes reach the disk before the name does, so a reader sees the old file or the new one,
    also after a power cut. When the block raises, the old file stays and the temporary one goes.

    Raises:
        error: the folder is missing or read-only, or the disk is full; says which and what to do.
    """
    target = Path(path)
    name: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(handle, mode) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
        name = None
    except OSError as cause:
        raise error(
            f"{target}: cannot be written: {cause.strerror or cause}; "
            "free some space or choose a folder you may write to; nothing was replaced"
        ) from cause
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                Path(name).unlink()


def atomic_write_text(
    path: str | os.PathLike[str], text: str, error: type[VerydeepError] = VerydeepError
) -> None:
    """Replace the file at `path` by `text` in UTF-8. See `atomic_write`."""
    with atomic_write(path, "wb", error) as stream:
        stream.write(text.encode())
