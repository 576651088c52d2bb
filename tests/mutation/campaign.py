"""Read many damaged files of each format, in processes that may be killed.

    python -m tests.mutation.campaign --count 100000 toml xml log

Prints a line for each format: how many files were read, how many were refused by a typed error, and
every crash, hang and other error with the seed that makes the file again (`--first N --count 1`).
Ends with status 1 if there is any.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prototxt_gen.errors import VerydeepError
from tests.mutation.mutate import mutant
from tests.mutation.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "tests.mutation.campaign")
SECONDS = 10.0
"""What one file may take at most, on a busy machine."""
IMPORTS = 60.0
"""What the imports of a process may take besides."""
MEGABYTES = 3000
"""Address space of a process that reads."""
READ, REFUSED = "read", "refused"


@dataclass
class Outcome:
    """What became of the files of one format."""

    kind: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int]] = field(default_factory=dict)
    """Numbers of the files, by what went wrong."""
    slowest: float = 0.0

    def add(self, number: int, result: str, seconds: float) -> None:
        self.slowest = max(self.slowest, seconds)
        if result in (READ, REFUSED):
            self.counts[result] += 1
        else:
            self.faults.setdefault(result, []).append(number)

    def lines(self) -> Iterator[str]:
        total = sum(self.counts.values()) + sum(map(len, self.faults.values()))
        yield (
            f"{self.kind}: {total} files, {self.counts[READ]} read, {self.counts[REFUSED]} refused,"
            f" {total - sum(self.counts.values())} faults, the slowest {self.slowest:.2f} s"
        )
        for what, numbers in sorted(self.faults.items(), key=lambda item: -len(item[1])):
            yield f"  {len(numbers)} x {what}; first: {numbers[0]}"


def file_of(kind: str, seeds: Sequence[bytes], number: int) -> bytes:
    """The damaged file of a number; always the same."""
    return mutant(seeds, random.Random(f"{kind} {number}"))


def read_files(kind: str, first: int, count: int) -> Iterator[tuple[int, str, float]]:
    """Read files in this process; yields number, result and seconds."""
    target = TARGETS[kind]
    seeds = target.seeds()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / target.name
        for number in range(first, first + count):
            path.unlink(missing_ok=True)
            path.write_bytes(file_of(kind, seeds, number))
            started = time.monotonic()
            result = _result(kind, path)
            yield number, result, time.monotonic() - started


def _result(kind: str, path: Path) -> str:
    try:
        TARGETS[kind].read(path)
    except VerydeepError as error:
        if len(str(error)) > 10_000:
            return f"message of {len(str(error))} characters"
        return REFUSED
    except BaseException as error:  # noqa: BLE001  what is not typed is what is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [p for p in traceback.extract_tb(error.__traceback__) if str(ROOT) in p.filename]
        place = own[-1] if own else place
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
    return READ


def run(kind: str, first: int, count: int, seconds: float = SECONDS) -> Outcome:
    """Read files in processes of their own, each begun again after the file that ended it."""
    outcome, done = Outcome(kind), 0
    while done < count:
        for number, result, took in _child(kind, first + done, count - done, seconds):
            outcome.add(number, result, took)
            done = number - first + 1
    return outcome


def _child(kind: str, first: int, count: int, seconds: float) -> Iterator[tuple[int, str, float]]:
    command = [*PROGRAM, "--child", kind, "--first", str(first), "--count", str(count)]
    child = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    )
    assert child.stdout is not None
    number = first
    try:
        while number < first + count:
            patience = seconds + (IMPORTS if number == first else 0)
            ready, _, _ = select.select([child.stdout], [], [], patience)
            line = child.stdout.readline() if ready else ""
            if not line:
                child.kill()
                how = f"crash with status {child.wait()}" if ready else f"longer than {seconds} s"
                yield number, how, 0.0
                return
            number, result, took = json.loads(line)
            yield number, result, took
            number += 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _serve(kind: str, first: int, count: int) -> None:
    size = MEGABYTES << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for record in read_files(kind, first, count):
        # One line at a time, unbuffered: select looks at the pipe.
        print(json.dumps(record), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", choices=[*TARGETS, []], metavar="FORMAT")
    parser.add_argument("--count", type=int, default=10_000, help="files of each (10000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="at most for one file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--save", type=Path, help="write the file of --first here, and end")
    args = parser.parse_args()
    if args.save:
        args.save.write_bytes(file_of(args.kinds[0], TARGETS[args.kinds[0]].seeds(), args.first))
        return 0
    if args.child:
        _serve(args.kinds[0], args.first, args.count)
        return 0
    faults = 0
    for kind in args.kinds or TARGETS:
        outcome = run(kind, args.first, args.count, args.seconds)
        print("\n".join(outcome.lines()), flush=True)
        faults += len(outcome.faults)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
