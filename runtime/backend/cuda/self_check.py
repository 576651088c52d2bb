"""The check of kernels on a device: each family computes known answers before its first use.

    check = SelfCheck(make_backend, reference, store)
    check.usable("winograd_4x4")     False if its answers are wrong: the next rung is used
    check.require("gemm")            raises if they are wrong: the family has no other rung

The results of a device, a driver and a version of the kernels are kept in a file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cuda_kernels import SOURCE_DIR
from cuda_kernels.cache import cache_folder, digest
from prototxt_gen.errors import DeviceError, KernelBuildError
from prototxt_gen.files import atomic_write_text
from runtime.backend.base import Backend
from runtime.backend.cuda.driver import DeviceInfo
from runtime.backend.cuda.known_answers import ALGORITHMS, KNOWN, SOURCES, Bench, next_rung

log = logging.getLogger("verydeep.backend")

_TOLERANCE = 2e-4
"""The largest error of a result relative to its largest element. Winograd's F(4x4) has 1e-5."""


class SelfCheck:
    """The results of one device, which are computed when they are first needed.

    make_backend: opens a backend on the device that checks nothing.
    reference: opens the backend that gives the answers.
    store: the file of the results; None to keep them in memory only.
    """

    def __init__(
        self,
        device: str,
        make_backend: Callable[[], Backend],
        reference: Callable[[], Backend],
        store: Path | None,
    ) -> None:
        self._device = device
        self._make_backend, self._reference = make_backend, reference
        self._store = store
        self._faults: dict[str, str] = _read(store)
        self._told: set[str] = set()

    def usable(self, rung: str) -> bool:
        """Whether a rung gives the known answers; the first failure of a rung is logged."""
        fault = self.fault(rung)
        if fault and rung not in self._told:
            self._told.add(rung)
            log.warning(
                "%s: the self-check of %s failed (%s); %s is used instead",
                self._device,
                rung,
                fault,
                next_rung(rung) or "nothing",
            )
        return not fault

    def require(self, source: str) -> None:
        """Check the family of a source file before its first use.

        Raises:
            DeviceError: its answers are wrong.
        """
        rung = SOURCES.get(source)
        fault = self.fault(rung) if rung is not None else ""
        if fault:
            raise DeviceError(
                f"{self._device}: the self-check of {rung} failed ({fault}); expected the known "
                "answers, and there is no other kernel for this op; use the backend 'cpu', and "
                "report the output of `verydeep device_query --check`"
            )

    def run(self) -> Mapping[str, str]:
        """Check every family again; returns the fault of each rung, empty where it is right."""
        self._faults = {}
        return {rung: self.fault(rung) for rung in KNOWN}

    def fault(self, rung: str) -> str:
        """What is wrong with a rung; empty if it gives the known answers."""
        fault = self._faults.get(rung)
        if fault is None:
            fault = self._faults[rung] = self._compute(rung)
            self._write()
        return fault

    def _compute(self, rung: str) -> str:
        work, algorithm = KNOWN[rung], rung if rung in ALGORITHMS else None
        bench = Bench(self._make_backend(), algorithm)
        memory = bench.backend.device_memory
        try:
            results = work(bench)
        except KernelBuildError:
            raise
        except DeviceError as error:
            return str(error).partition("\n")[0]
        finally:
            del bench  # and the arrays that its backend keeps
            if memory is not None:
                memory.close()
        for got, want in zip(results, work(Bench(self._reference())), strict=True):
            scale = max(1.0, float(np.abs(want).max(initial=0.0)))
            difference = float(np.abs(got.astype(np.float64) - want).max(initial=0.0)) / scale
            if not difference <= _TOLERANCE:
                return f"the error is {difference:.2g} of the largest result"
        return ""

    def _write(self) -> None:
        if self._store is not None:
            # Another process may have checked other families meanwhile.
            merged = {**_read(self._store), **self._faults}
            atomic_write_text(self._store, json.dumps(merged, indent=1) + "\n")


def store_of(info: DeviceInfo, device_id: int) -> Path:
    """The file for a device, its driver and the present kernels.

    Raises:
        KernelBuildError: no folder for the file can be written.
    """
    texts = [path.read_bytes() for path in sorted(SOURCE_DIR.glob("*.cu*"))]
    known = Path(__file__).with_name("known_answers.py").read_bytes()
    device = (info.name, str(info.compute_capability), info.driver_version, str(device_id))
    return cache_folder() / f"self-check-{digest(*device, known, *texts)}.json"


def _read(store: Path | None) -> dict[str, str]:
    """The results in a file; none if it is missing or damaged."""
    if store is None:
        return {}
    try:
        values = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        rung: fault for rung, fault in values.items() if rung in KNOWN and isinstance(fault, str)
    }
