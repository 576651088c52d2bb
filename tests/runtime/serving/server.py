"""A server in another process, for tests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[3]


class Client:
    """Requests to one address."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address, self.process = address, process
        parts = urlsplit(address)
        self.host, self.port = parts.hostname or "", parts.port or 0

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def predict(self, body: Any, path: str = "/predict", **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text = self.request("POST", path, body, named)
        return status, json.loads(text)


@contextlib.contextmanager
def served(*words: str) -> Iterator[Client]:
    """`verydeep serve` with these words, at a free port."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "runtime", "serve", "--port", "0", *words],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("serving at http://"), line
            yield Client(line.split()[-1], process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
