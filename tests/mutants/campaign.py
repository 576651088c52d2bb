"""Runs the mutants of a format in worker processes and collects the findings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.mutants.case import Format
from tests.mutants.worker import FINDINGS, MUTANT, TRACE, Board, product_place, run

CHUNK = 1000
"""The mutants of one process; side effects of a mutant can affect only the following ones."""
_FAILED = 70
_TIMES = {signal.SIGPROF: "CPU time", signal.SIGALRM: "blocked"}


@dataclass
class Group:
    """Findings of one kind at one line of the program."""

    kind: str
    error: str
    place: str
    case: str
    first: int
    message: str
    count: int = 1


@dataclass
class Result:
    """The results of the mutants of one format."""

    format: str
    seed: int
    start: int
    count: int
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    groups: list[Group] = field(default_factory=list)

    def add(self, finding: dict[str, Any]) -> None:
        """Count a finding in the group of its kind, error and place."""
        for group in self.groups:
            if (group.kind, group.error, group.place) == tuple(
                finding[key] for key in ("kind", "error", "place")
            ):
                group.count += 1
                if finding["index"] < group.first:
                    group.first, group.case = finding["index"], finding["case"]
                    group.message = finding["message"]
                return
        keys = ("kind", "error", "place", "case", "message")
        self.groups.append(Group(first=finding["index"], **{key: finding[key] for key in keys}))

    @property
    def failures(self) -> int:
        return sum(group.count for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """The results for JSON."""
        self.groups.sort(key=lambda group: (group.kind, group.place, group.error))
        return asdict(self)


class _Job:
    """A worker process for a range of mutants, restarted after a mutant that ends it."""

    def __init__(self, form: Format, seed: int, indices: Sequence[int], loud: bool) -> None:
        self.form, self.seed, self.loud = form, seed, loud
        self.left = list(indices)
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-", dir=_fast_folder()))
        self.accepted = self.refused = 0
        self._start()

    def _start(self) -> None:
        self.board = Board()
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        self.pid = os.fork()
        if self.pid == 0:
            status = _FAILED
            try:
                os.chdir(work)
                run(self.form, self.seed, self.left, self.folder, self.board, self.loud)
                sys.stdout.flush()
                status = 0
            except BaseException:  # noqa: BLE001  reported by the exit status
                traceback.print_exc()
            finally:
                # Buffers and files of the supervisor must not be flushed or closed here.
                os._exit(status)

    def poll(self, result: Result) -> bool:
        """Whether all mutants are done; a process that ended early is restarted."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return False
        index, accepted, refused = self.board.read()
        result.accepted += accepted
        result.refused += refused
        if index < 0 and status == 0:
            self._gather(result)
            return True
        if index < 0:
            raise RuntimeError(
                f"{self.form.name}: the samples could not be created (status {status})"
            )
        result.add(self._ended(index, status))
        self.left = self.left[self.left.index(index) + 1 :]
        if not self.left:
            self._gather(result)
            return True
        self._start()
        return False

    def _ended(self, index: int, status: int) -> dict[str, Any]:
        trace = (self.folder / TRACE).read_text(errors="replace")
        if self.loud:
            print(trace, flush=True)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        kind = "hang" if number in _TIMES else "crash"
        error = _TIMES.get(signal.Signals(number), "") if number else f"exit {status >> 8}"
        return {
            "kind": kind,
            "error": error or signal.Signals(number).name,
            "place": _place_in(trace),
            "case": "",
            "index": index,
            "message": trace.splitlines()[0][:200] if trace else "",
        }

    def _gather(self, result: Result) -> None:
        path = self.folder / FINDINGS
        if path.exists():
            for line in path.read_text().splitlines():
                result.add(json.loads(line))

    def close(self) -> None:
        """Remove the folder, and the process if it still runs."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)


def campaign(
    form: Format,
    seed: int,
    indices: Iterable[int],
    jobs: int = 1,
    save: Path | None = None,
    loud: bool = False,
) -> Result:
    """Read mutants in `jobs` concurrent processes.

    With `loud` mutants and errors are printed; with `save` the last mutant is written to that file.
    """
    numbers = list(indices)
    chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
    result = Result(form.name, seed, numbers[0] if numbers else 0, len(numbers))
    began = time.monotonic()
    running: list[_Job] = []
    try:
        while chunks or running:
            while chunks and len(running) < jobs:
                running.append(_Job(form, seed, chunks.pop(0), loud))
            for job in list(running):
                if job.poll(result):
                    if save is not None:
                        shutil.copy(job.folder / MUTANT, save)
                    running.remove(job)
                    job.close()
            time.sleep(0.005)
    finally:
        for job in running:
            job.close()
    result.seconds = time.monotonic() - began
    return result


def _fast_folder() -> str | None:
    """A folder in memory, if there is one, because mutants are many small files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _place_in(trace: str) -> str:
    """The innermost line of the program in faulthandler's trace of the thread that failed."""
    head, _, current = trace.partition("Current thread")
    for part in (current, head):
        for line in part.splitlines():
            if line.startswith('  File "'):
                name, _, rest = line[8:].partition('", line ')
                place = product_place(name, int(rest.split()[0]))
                if place:
                    return place
    return ""
