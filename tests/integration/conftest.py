"""A tiny finished run of the main job, to misuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.backend.registry import create_backend
from runtime.job.run import JobOptions, run_job


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a main job on 40 images and 2 iterations."""
    out = tmp_path_factory.mktemp("finished")
    run_job(JobOptions(out=out, max_iter=2, demo_images=(40, 20)), create_backend("cpu"))
    return out
