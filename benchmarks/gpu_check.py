"""Runs every stage of the GPU check within its time limit, and prints a summary.

Started by gpu_check.sh. After a stage that fails or exceeds its limit the others run; the exit
status is 0 if all succeed, 1 if one fails, 2 if there is no GPU. OUT has few files: summary.txt,
summary.json and results.tar.gz, an archive of all JSON files and logs that is replaced every ten
seconds.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_archive import Archive
from gpu_stages import OK, PART_SECONDS, Outcome, Stage, run_stage, stages
from record import write_record

from prototxt_gen.errors import DeviceError
from prototxt_gen.files import atomic_write_text
from runtime.backend.cuda import open_driver

ARCHIVE = "results.tar.gz"


def table(outcomes: Sequence[Outcome]) -> str:
    """A table with one line per stage."""
    width = max(len(outcome.status) for outcome in outcomes)
    return "\n".join(
        f"{one.name:<10} {one.status:<{width}} {one.seconds:6.1f} s  {one.last_line}".rstrip()
        for one in outcomes
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_check.py", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, metavar="DIR", help="JSON and logs (default: OUT)")
    parser.add_argument("--started", type=float, default=time.time(), metavar="EPOCH")
    parser.add_argument("--device", choices=("gpu", "emu"), default="gpu")
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--part", type=int, choices=tuple(PART_SECONDS), help="default: both")
    parser.add_argument("--stages", metavar="A,B", help="run only these")
    return parser.parse_args(argv)


def chosen(args: argparse.Namespace, every: Sequence[Stage]) -> list[Stage]:
    """The stages of --stages and --part.

    Raises:
        ValueError: a stage is unknown.
    """
    names = args.stages.split(",") if args.stages else [stage.name for stage in every]
    unknown = set(names) - {stage.name for stage in every}
    if unknown:
        expected = ", ".join(stage.name for stage in every)
        raise ValueError(
            f"no stage {', '.join(sorted(unknown))}; expected {expected}; correct --stages"
        )
    return [stage for stage in every if stage.name in names and args.part in (None, stage.part)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages and write summary.json, summary.txt and the archive."""
    args = _arguments(argv)
    work = args.work or args.out
    try:
        selected = chosen(args, stages(args.device, args.size, work.absolute()))
    except ValueError as error:
        print(f"gpu_check: {error}")
        return 2
    try:
        open_driver(args.device).close()
    except DeviceError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    for folder in (args.out, work):
        folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _end)
    seconds = PART_SECONDS[args.part] if args.part else sum(PART_SECONDS.values())
    with Archive(work, args.out / ARCHIVE):
        outcomes = _run(selected, args.started + seconds, args.out, work)
    return int(any(one.status != OK and "left out" not in one.status for one in outcomes))


def _end(*_: Any) -> None:
    """End by an exception, which ends the stage in progress and writes the archive."""
    sys.exit(1)


def _run(selected: Sequence[Stage], end: float, out: Path, work: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for stage in selected:
        limit = min(stage.limit, end - time.time())
        outcomes.append(run_stage(stage, limit, work / f"{stage.name}.log"))
        print(table(outcomes[-1:]), flush=True)
        atomic_write_text(out / "summary.txt", table(outcomes) + "\n")
        write_record(out / "summary.json", {"stages": [asdict(outcome) for outcome in outcomes]})
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
