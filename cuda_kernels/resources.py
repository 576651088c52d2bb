"""The resources of a multiprocessor that kernels use, read from the assembler's report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cuda_kernels.manifest import Manifest
from prototxt_gen.integers import ceil_div, round_up

_ENTRY = re.compile(r"Compiling entry function '(\w+)' for")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_WARP = 32


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor. CUDA C++ programming guide, technical specifications."""

    threads: int
    blocks: int
    shared: int
    registers: int = 65536


# By architecture; from sm_80 on the system reserves 1 KiB of shared memory per block.
MULTIPROCESSORS = {
    75: Multiprocessor(1024, 16, 64 << 10),
    80: Multiprocessor(2048, 32, 164 << 10),
    86: Multiprocessor(1536, 16, 100 << 10),
    89: Multiprocessor(1536, 24, 100 << 10),
    90: Multiprocessor(2048, 32, 228 << 10),
    100: Multiprocessor(2048, 32, 228 << 10),
    120: Multiprocessor(1536, 24, 100 << 10),
}


@dataclass(frozen=True)
class Resources:
    """The resources of one kernel on one architecture.

    Units: bytes, except registers (per thread) and threads (per block).
    """

    source: str
    kernel: str
    arch: int
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    threads: int

    @property
    def spills(self) -> int:
        return self.spill_stores + self.spill_loads

    @property
    def occupancy(self) -> float | None:
        """Share of a multiprocessor's threads that are resident, without dynamic shared memory."""
        limits = MULTIPROCESSORS.get(self.arch)
        if limits is None:
            return None
        warps = ceil_div(self.threads, _WARP)
        # Registers are allocated to warps in units of 256.
        per_warp = round_up(self.registers * _WARP, 256)
        reserved = 1024 if self.arch >= 80 else 0
        blocks = min(
            limits.blocks,
            limits.threads // (warps * _WARP),
            limits.registers // max(per_warp, 1) // warps,
            limits.shared // max(self.shared + reserved, 1),
        )
        return blocks * warps * _WARP / limits.threads


def parse_ptxas(report: str, manifest: Manifest, arch: int) -> list[Resources]:
    """Parse the output of `-Xptxas -v`; the result is in the order of the prototypes."""
    resources: dict[str, Resources] = {}
    pieces = _ENTRY.split(report)
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        if name not in manifest.kernels:
            continue
        stack = _STACK.search(text)
        registers, shared = _REGISTERS.search(text), _SHARED.search(text)
        resources[name] = Resources(
            source=manifest.path.name,
            kernel=name,
            arch=arch,
            registers=int(registers[1]) if registers else 0,
            shared=int(shared[1]) if shared else 0,
            stack=int(stack[1]) if stack else 0,
            spill_stores=int(stack[2]) if stack else 0,
            spill_loads=int(stack[3]) if stack else 0,
            threads=manifest.kernels[name].max_threads,
        )
    return [resources[name] for name in manifest.kernels if name in resources]


def resource_table(entries: Sequence[Resources]) -> str:
    """A table with one line per kernel: all numbers of one architecture, or registers on several.

    Spilled bytes follow the registers with a mark: `128+60!`. The last line counts the kernels.
    """
    architectures = sorted({entry.arch for entry in entries})
    rows = _detailed(entries) if len(architectures) < 2 else _several(entries)
    spilling = {entry.kernel for entry in entries if entry.spills}
    count = f"{len(spilling)}, marked by !" if spilling else "none"
    return f"{_aligned(rows)}\nkernels that spill registers: {count}"


def _detailed(entries: Sequence[Resources]) -> list[list[str]]:
    rows = [["file", "kernel", "arch", "threads", "regs", "shared", "spill", "occupancy"]]
    for entry in entries:
        occupancy = entry.occupancy
        rows.append(
            [entry.source, entry.kernel, f"sm_{entry.arch}", str(entry.threads)]
            + [str(entry.registers), str(entry.shared), f"{entry.spills}{'!' * bool(entry.spills)}"]
            + ["-" if occupancy is None else f"{100 * occupancy:.0f} %"]
        )
    return rows


def _several(entries: Sequence[Resources]) -> list[list[str]]:
    architectures = sorted({entry.arch for entry in entries})
    rows = [["file", "kernel", "threads", "shared"] + [f"sm_{arch}" for arch in architectures]]
    kernels: dict[tuple[str, str], dict[int, Resources]] = {}
    for entry in entries:
        kernels.setdefault((entry.source, entry.kernel), {})[entry.arch] = entry
    for (source, kernel), by_arch in kernels.items():
        any_one = next(iter(by_arch.values()))
        row = [source, kernel, str(any_one.threads), str(any_one.shared)]
        for arch in architectures:
            one = by_arch.get(arch)
            spills = f"+{one.spills}!" if one is not None and one.spills else ""
            row.append("-" if one is None else f"{one.registers}{spills}")
        rows.append(row)
    return rows


def _aligned(rows: list[list[str]]) -> str:
    """Align names to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
