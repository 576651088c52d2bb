"""The rate at which the data pipeline decodes, crops and mirrors JPEGs.

python benchmarks/pipeline.py --workers 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.lmdb_io import Reader, Writer
from data_prep.prefetch import BatchReader
from data_prep.read_plan import ReadPlan, default_workers
from data_prep.transform import Crop, MeanValues, Mirror, Transform
from prototxt_gen import proto

MIRRORED = "JPEG of 20 kB, 256 px: decode, crop 224, mirror"
_IMAGES, _SIDE, _CROP, _BATCH = 512, 256, 224, 64
_MEAN = (104.0, 117.0, 123.0)


def picture(seed: int) -> bytes:
    """A JPEG of about 20 kB: large shapes, with as much noise as a photograph."""
    random = np.random.default_rng(seed)
    shapes = random.integers(0, 256, (40, 40, 3), np.uint8)
    smooth = cv2.resize(shapes, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noisy = np.clip(smooth + random.integers(-7, 8, smooth.shape), 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def jpeg_rate(workers: int, rounds: int = 9) -> dict[str, Any]:
    """The rate in each round of eight batches, and the median. Units: images/s."""
    transform = Transform((Crop(_CROP), Mirror(), MeanValues(_MEAN)))
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "jpegs")
        size = _write(path)
        plan = ReadPlan(Reader(path), transform, _BATCH, workers=workers)
        with BatchReader(plan) as reader:
            for turn in range(8 * (rounds + 1)):
                if turn % 8 == 0:
                    start = time.perf_counter()
                reader.recycle(reader.read(turn, 0, _BATCH))
                if turn % 8 == 7:
                    rates.append(8 * _BATCH / (time.perf_counter() - start))
    return {
        "workers": workers,
        "bytes": size,
        "rates": rates[1:],
        "median": statistics.median(rates[1:]),
    }


def _write(path: Path) -> float:
    """Write the database, and return the mean size of its JPEGs in bytes."""
    sizes = []
    with Writer(path) as writer:
        for index in range(_IMAGES):
            data = picture(index)
            sizes.append(len(data))
            record = proto.Datum(encoded=True, data=data, label=index % 10)
            writer.put(f"{index:08d}".encode(), record.SerializeToString())
    return statistics.mean(sizes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=default_workers())
    print(jpeg_rate(parser.parse_args().workers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
