"""The bytes of image files, for every reader that takes files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from data_prep.image_formats import MAX_PIXELS
from prototxt_gen.errors import DataError

# Four channels of 16 bits.
_MAX_BYTES = 8 * MAX_PIXELS


def read_image_file(path: str | os.PathLike[str]) -> bytes:
    """Read an image file whole, without decoding it.

    Raises:
        DataError: the file is missing, no regular file, or larger than any image that is accepted.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            reason = "it is not a regular file"
        elif status.st_size > _MAX_BYTES:
            reason = f"it has {status.st_size} bytes, more than {_MAX_BYTES}"
        else:
            return Path(path).read_bytes()
    except (OSError, ValueError) as cause:
        reason = cause.strerror or str(cause) if isinstance(cause, OSError) else str(cause)
    raise DataError(
        f"{path}: cannot be read: {reason}; expected an image file; check the path, or the list "
        "that names it"
    )
