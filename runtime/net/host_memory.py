"""Report failed allocations of host memory as DeviceError."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from prototxt_gen.errors import DeviceError


@contextlib.contextmanager
def naming_memory(label: str) -> Iterator[None]:
    """Convert failed allocations in the block to errors that begin with `label`.

    Raises:
        DeviceError: there is too little host memory.
    """
    try:
        yield
    except MemoryError as cause:
        raise _too_little(label, cause) from cause
    except OSError as cause:  # from mmap
        if cause.errno != errno.ENOMEM:
            raise
        raise _too_little(label, cause) from cause


def _too_little(label: str, cause: Exception) -> DeviceError:
    return DeviceError(
        f"{label}: too little host memory: {cause or 'an allocation failed'}; expected memory for "
        "all blobs and workspaces; use a smaller batch or smaller images"
    )
