"""A contestant in a separate process, which computes on each line of the standard input.

Uses the standard library alone: workers of peers run where this project is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Work = Callable[[], object]


def arguments() -> argparse.Namespace:
    """The flags: --work forward|step|iteration --net D --batch 8 --threads 2."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--net", default="D")
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--layout", default="nchw")
    return parser.parse_args()


def serve(work: Work, described: dict[str, Any]) -> None:
    """Answer requests: a line with a number runs `work` so often, and prints the mean time.

    The first line of output describes the contestant. The line `memory` requests the peak of the
    resident memory. Units: ms, MB.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of libraries goes to the log
    print(json.dumps(described), file=answers)
    for line in sys.stdin:
        if line.strip() == "memory":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(peak), file=answers)
            continue
        count = int(line)
        start = time.perf_counter()
        for _ in range(count):
            work()
        print(json.dumps(1e3 * (time.perf_counter() - start) / count), file=answers)
