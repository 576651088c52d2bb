"""Runs one kernel of a source of these tests: `run_fault SANITIZER SOURCE KERNEL`."""

from __future__ import annotations

import sys

import numpy as np

from tests.cuda_kernels.bench import Bench

if __name__ == "__main__":
    sanitizer, source, kernel = sys.argv[1:]
    n = 128
    x = np.arange(4 * n, dtype=np.float32)
    y = np.zeros(n, np.float32)
    # The number of elements that the kernel gets; one too many is the fault.
    rows = {"reuse": 2, "write_after_read": 2}.get(kernel, 4 if source == "tensor" else 1)
    count = 4 if source == "tensor" else n
    Bench(sanitizer=sanitizer).run(source, kernel, (x[: rows * n], y, count), block=(n, 1, 1))
    print("done")
