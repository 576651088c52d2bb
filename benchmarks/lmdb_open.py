"""Time and memory for opening a database, by its number of records.

Databases of small records are written to a temporary folder, opened each in a separate process,
and deleted. Units: seconds, MiB. The file is in the cache of the system when it is opened.

    python benchmarks/lmdb_open.py --records 1000 100000 1281167 14000000
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import RESULTS, ROOT, write_record

from data_prep.lmdb_io import Reader

ILSVRC = 1_281_167
_RECORDS = (1_000, 100_000, ILSVRC, 14_000_000)
_VALUE = bytes(range(30))
_READS = 20_000
_PER_TRANSACTION = 1_000_000


def write_database(path: Path, count: int) -> None:
    """Write records of 30 bytes with keys like those of ILSVRC, in order."""
    import lmdb

    with lmdb.open(str(path), map_size=(1 << 26) + 200 * count, sync=False) as environment:
        for start in range(0, count, _PER_TRANSACTION):
            with environment.begin(write=True) as transaction:
                stop = min(count, start + _PER_TRANSACTION)
                transaction.cursor().putmulti(_records(start, stop), append=True)


def _records(start: int, stop: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(start, stop):
        yield b"%08d_n%08d/n%08d_%d.JPEG" % (number, number % 1000, number % 1000, number), _VALUE


def measure_open(path: Path) -> dict[str, float]:
    """Open a database in this process, and read random records."""
    before = _peak()
    start, processor = time.perf_counter(), time.process_time()
    reader = Reader(path)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    memory = _peak() - before
    places = [random.Random(0).randrange(len(reader)) for _ in range(_READS)]
    start = time.perf_counter()
    for place in places:
        reader.get(place)
    return {
        "seconds": round(seconds, 4),
        "processor_seconds": round(processor, 4),
        "peak_mib": round(memory, 1),
        "read_us": round((time.perf_counter() - start) / _READS * 1e6, 2),
    }


def _peak() -> float:
    """The peak of the memory of this process. Units: MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("lmdb_open: needs Linux's /proc/self/status")


def measure(counts: list[int], folder: str | None) -> list[dict[str, Any]]:
    """One result for each number of records."""
    results = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            path = Path(temporary, "db")
            write_database(path, count)
            size = (path / "data.mdb").stat().st_size
            done = subprocess.run(
                [sys.executable, __file__, "--open", str(path)],
                capture_output=True, text=True, check=True, cwd=ROOT,
            )  # fmt: skip
            shutil.rmtree(path)
        result = {"records": count, "file_mib": round(size / 2**20, 1), **json.loads(done.stdout)}
        print(json.dumps(result), flush=True)
        results.append(result)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, nargs="+", default=list(_RECORDS))
    parser.add_argument("--folder", help="where the databases are written (default: temporary)")
    parser.add_argument("--json", type=Path, default=RESULTS / "lmdb_open.json")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open is not None:
        print(json.dumps(measure_open(args.open)))
    else:
        write_record(args.json, {"databases": measure(args.records, args.folder)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
