"""A small net with all features that could make replicas differ."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.job.exactness import train_case, write_case
from runtime.logs.glog import close_logging
from runtime.parallel import flat_params

Trained = Callable[..., str]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Close the log that a command line has opened."""
    yield
    close_logging()


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return write_case(tmp_path)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that every weight blob has several owners."""
    monkeypatch.setattr(flat_params, "CHUNK", 16)


@pytest.fixture
def fresh() -> Trained:
    """Train from the beginning, without snapshots."""

    def run(solver: Path, replicas: int, **others: str) -> str:
        shutil.rmtree(solver.parent / "run", ignore_errors=True)
        return train_case(solver, replicas, **others)

    return run
