"""The command line; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.campaign import Result, campaign
from tests.mutants.formats import FORMATS


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants",
        description="Read damaged files. The exit status is 1 if one crashes the program, hangs "
        "it, uses too much memory, or raises an error outside of the typed family.",
    )
    parser.add_argument(
        "--format", default="all", help=f"all, or names separated by commas: {', '.join(FORMATS)}"
    )
    parser.add_argument("--count", type=int, default=1000, help="number of mutants of each format")
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="number of concurrent processes")
    parser.add_argument(
        "--only", type=int, metavar="N", help="read only mutant N, and print its trace"
    )
    parser.add_argument("--save", metavar="FILE", help="with --only: write the mutant to this file")
    parser.add_argument(
        "--json", metavar="FILE", help="write the results of each format to this file"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the campaigns; returns 1 if there are failures."""
    args = _arguments(argv)
    names = list(FORMATS) if args.format == "all" else args.format.split(",")
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        print(f"unknown format {unknown[0]!r}; expected one of {', '.join(FORMATS)}")
        return 2
    results = []
    for name in names:
        alone = args.only is not None
        first, count = (args.only, 1) if alone else (args.start, args.count)
        save = Path(args.save) if alone and args.save else None
        indices = range(first, first + count)
        result = campaign(FORMATS[name], args.seed, indices, args.jobs, save, loud=alone)
        results.append(result)
        print(report(result), flush=True)
        if args.json:
            rows = [result.as_dict() for result in results]
            Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return int(any(result.failures for result in results))


def report(result: Result) -> str:
    """A line of numbers, and a line for each group of findings."""
    result.as_dict()
    rate = result.count / max(result.seconds, 1e-9)
    lines = [
        f"{result.format}: {result.count} mutants from {result.start} (seed {result.seed}) in "
        f"{result.seconds:.0f} s, {rate:.0f}/s: {result.accepted} accepted, {result.refused} "
        f"refused, {result.failures} failures in {len(result.groups)} groups"
    ]
    lines += [
        f"  {group.count:6d}  {group.kind:10} {group.error} at {group.place or '?'}"
        f"  first {group.first} {group.case}: {group.message[:110]!r}"
        for group in result.groups
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
