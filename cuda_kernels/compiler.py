"""Runs a compiler, and says in its own words what it refuses."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Sequence

from cuda_kernels import SOURCE_DIR
from cuda_kernels.cache import digest
from prototxt_gen.errors import KernelBuildError


def run_compiler(command: Sequence[str], what: str, stdin: str | None = None) -> str:
    """What the compiler printed, on both of its streams.

    Raises:
        KernelBuildError: it cannot be started, or refuses the source.
    """
    try:
        done = subprocess.run(
            list(command),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
        )
    except OSError as cause:
        raise KernelBuildError(
            f"{what}: {command[0]} cannot be started: {cause.strerror}; expected a compiler; "
            "check the installation"
        ) from cause
    if done.returncode != 0:
        raise KernelBuildError(
            f"{what}: the compiler refuses; expected code that builds, got\n{done.stdout.strip()}\n"
            f"from the command\n{shlex.join(command)}\ncorrect the source"
        )
    return done.stdout


@functools.cache
def headers_digest(*patterns: str) -> str:
    """A name for the contents of all headers that a kernel may include."""
    paths = sorted(path for pattern in patterns for path in SOURCE_DIR.glob(pattern))
    return digest(*(part for path in paths for part in (path.name, path.read_bytes())))
