"""Counters of a server, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram of times, in seconds."""


class Metrics:
    """Numbers of requests and their times. Several threads may use one object."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: Counter[int] = Counter()
        self._times: Counter[float] = Counter()
        self._seconds = 0.0

    def add(self, status: int, seconds: float) -> None:
        """Count an answered request."""
        bound = next((bound for bound in _BOUNDS if seconds <= bound), float("inf"))
        with self._lock:
            self._statuses[status] += 1
            self._times[bound] += 1
            self._seconds += seconds

    def text(self, waiting: int, sizes: Iterable[int]) -> str:
        """All metrics; `sizes` are the numbers of batches of 0, 1, 2, ... images."""
        with self._lock:
            statuses, times, seconds = Counter(self._statuses), Counter(self._times), self._seconds
        lines = ["# TYPE verydeep_requests_total counter"]
        lines += [
            f'verydeep_requests_total{{status="{status}"}} {count}'
            for status, count in sorted(statuses.items())
        ]
        lines.append("# TYPE verydeep_request_seconds histogram")
        total = 0
        for bound in (*_BOUNDS, float("inf")):
            total += times[bound]
            name = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'verydeep_request_seconds_bucket{{le="{name}"}} {total}')
        lines += [
            f"verydeep_request_seconds_sum {seconds:.6f}",
            f"verydeep_request_seconds_count {total}",
            "# TYPE verydeep_requests_waiting gauge",
            f"verydeep_requests_waiting {waiting}",
            "# TYPE verydeep_batches_total counter",
        ]
        lines += [
            f'verydeep_batches_total{{size="{size}"}} {count}'
            for size, count in enumerate(sizes)
            if count
        ]
        return "\n".join(lines) + "\n"
