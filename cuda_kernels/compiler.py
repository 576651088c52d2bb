"""Runs a compiler, and reports its errors."""

from __future__ import annotations

import functools
import shlex
import subprocess
from collections.abc import Sequence

from cuda_kernels import SOURCE_DIR
from cuda_kernels.cache import digest
from prototxt_gen.errors import KernelBuildError


def run_compiler(command: Sequence[str], name: str, stdin: str | None = None) -> str:
    """Run a compiler and return its output, stdout and stderr together.

    Raises:
        KernelBuildError: the compiler cannot be started, or the source does not compile.
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
            f"{name}: {command[0]} cannot be started: {cause.strerror}; expected a compiler; "
            "check the installation"
        ) from cause
    if done.returncode != 0:
        raise KernelBuildError(
            f"{name}: the source does not compile; expected code that builds, got\n"
            f"{done.stdout.strip()}\n"
            f"from the command\n{shlex.join(command)}\ncorrect the source"
        )
    return done.stdout


@functools.cache
def headers_digest(*patterns: str) -> str:
    """A name derived from the contents of all headers that a kernel may include."""
    paths = sorted(path for pattern in patterns for path in SOURCE_DIR.glob(pattern))
    return digest(*(part for path in paths for part in (path.name, path.read_bytes())))
