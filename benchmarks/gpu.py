"""Benchmarks of GPU kernels, compared with cuDNN: bandwidth, VGG's convolutions, complete steps.

    python benchmarks/gpu.py steps --out steps.json          with PyTorch, if it is installed
    python benchmarks/gpu.py layers --device emu --size tiny --out layers.json      a dry run

Contestants run in turn, round by round, so that a slow period of the machine affects all of them;
the results are medians. The file is written after every case, so that an interrupted run keeps the
results so far.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gpu_cases
import gpu_ours
import gpu_probes
from gpu_cases import Size
from gpu_torch import Torch, find_torch
from record import write_record

from cuda_kernels import kernel_sources
from cuda_kernels.build import build_binary, choose_target, find_nvcc
from cuda_kernels.host_build import build_module, build_runtime
from cuda_kernels.manifest import read_manifest
from prototxt_gen.errors import DeviceError, VerydeepError

Row = dict[str, Any]
Contestants = dict[str, tuple[Callable[[], object], Callable[[], None]]]
"""For each name the work and the function that waits for it."""
OURS = "verydeep"
ONE_BY_ONE = "launch by launch"


def measure(contestants: Contestants, size: Size) -> dict[str, float]:
    """The median time of each work, until the device is done. Units: ms."""
    repeats: dict[str, int] = {}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for name, (work, wait) in contestants.items():
        # The first run builds and allocates; after SETTLED runs repeated work is replayed.
        _timed(work, wait, 1 if name.startswith("torch") else gpu_ours.SETTLED)
        repeats[name] = max(1, round(size.seconds / max(_timed(work, wait, 1), 1e-6)))
    for _ in range(size.rounds):
        for name, (work, wait) in contestants.items():
            times[name].append(_timed(work, wait, repeats[name]))
    return {name: 1e3 * statistics.median(durations) for name, durations in times.items()}


def _timed(work: Callable[[], object], wait: Callable[[], None], repeats: int) -> float:
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    wait()
    return (time.perf_counter() - start) / repeats


def machine(device: str, size: Size) -> Iterator[Row]:
    """The device and the peers."""
    info = gpu_ours.open_device(device).driver.info
    row = {"gpu": info.name, "arch": info.arch, "memory_bytes": info.total_memory}
    row |= {"driver": info.driver_version, "multiprocessors": info.multiprocessors}
    if device == "gpu":
        row["nvcc"] = find_nvcc().version
    yield row
    # A first import may take most of the time of the stage.
    torch = find_torch(device)
    row = {"torch": None if torch is None else str(torch.__version__)}
    if torch is not None and device == "gpu":
        row["cuda of torch"], row["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    yield row


def build(device: str, size: Size) -> Iterator[Row]:
    """Compile all kernels concurrently, for the device and for the emulator that checks it."""
    drivers = [gpu_ours.open_device(name).driver for name in dict.fromkeys((device, "emu"))]
    sources = kernel_sources() if size is gpu_cases.FULL else kernel_sources()[:2]

    def compiled(driver: Any, source: Path) -> Row:
        start = time.perf_counter()
        try:
            if driver.name == "emu":
                build_module(read_manifest(source), build_runtime())
            else:
                target = choose_target(driver.info.arch, find_nvcc().architectures)
                build_binary(read_manifest(source), target)
        except DeviceError as error:
            # The device may lack tensor cores.
            return {"source": source.name, "driver": driver.name, "left_out": str(error)}
        seconds = time.perf_counter() - start
        return {"source": source.name, "driver": driver.name, "seconds": seconds}

    jobs = [(driver, source) for driver in drivers for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda job: compiled(*job), jobs)


def bandwidth(device: str, size: Size) -> Iterator[Row]:
    """The bandwidth of ops that are bound by memory, and its share of a copy's."""
    backend = gpu_ours.open_device(device)
    copy = {OURS: (gpu_ours.copying(backend, size.elements), backend.memory.synchronize)}
    rate = 8 * size.elements / measure(copy, size)[OURS] / 1e6
    yield {"kernel": "copy", "gigabytes_per_second": rate, "share_of_copy": 1.0}
    for name, bytes_per_element in gpu_cases.BANDWIDTH.items():
        work = gpu_ours.vector_work(backend, name, size.elements)
        elements = max(1, size.elements // 16384) * 16384
        ms = measure({OURS: (work, backend.memory.synchronize)}, size)[OURS]
        bandwidth = bytes_per_element * elements / ms / 1e6
        yield {"kernel": name, "gigabytes_per_second": bandwidth, "share_of_copy": bandwidth / rate}


def layers(device: str, size: Size) -> Iterator[Row]:
    """The convolutions of the paper's nets, forward and backward, in every precision."""
    for layer in size.layers:
        for precision in gpu_cases.PRECISIONS:
            backend, rivals = gpu_ours.open_device(device, precision), _rivals(device, precision)
            for row in _layer(layer, size, backend, rivals):
                yield row | {"precision": precision}
            for rival in rivals:
                rival.forget()
            backend.driver.close()


def _layer(
    layer: tuple[int, int, int], size: Size, backend: Any, rivals: list[Torch]
) -> Iterator[Row]:
    ours = gpu_ours.convolution(backend, layer, size.batch)
    theirs = [(rival, rival.convolution(layer, size.batch)) for rival in rivals]
    for step in gpu_cases.PASSES:
        entrants: Contestants = {OURS: (ours[step], backend.memory.synchronize)}
        entrants |= {rival.mode.name: (works[step], rival.synchronize) for rival, works in theirs}
        row = _compared(measure(entrants, size))
        rate = gpu_cases.gflop(layer, size.batch) / row["ms"][OURS]
        yield {"layer": "{0}->{1} at {2}x{2}".format(*layer), "pass": step, "tflops": rate} | row


def step(device: str, size: Size) -> Iterator[Row]:
    """Training of the first net in every precision, in one round."""
    once = dataclasses.replace(size, rounds=1)
    for precision in gpu_cases.PRECISIONS:
        row = _step(device, once, size.nets[0], precision, "training")
        yield {"net": size.nets[0], "step": "training", "precision": precision} | row


def probes(device: str, size: Size) -> Iterator[Row]:
    """Rates that the models of kernels assume."""
    backend = gpu_ours.open_device(device)
    yield from gpu_probes.probes(backend, size is gpu_cases.FULL)
    backend.driver.close()


def profile(device: str, size: Size) -> Iterator[Row]:
    """The kernels that PyTorch launches for three layers, and their times."""
    for layer in size.layers[1::3] or size.layers[:1]:
        for precision in gpu_cases.PRECISIONS:
            for rival in _rivals(device, precision):
                works = rival.convolution(layer, size.batch)
                for name, work in works.items():
                    yield {
                        "layer": "{0}->{1} at {2}x{2}".format(*layer),
                        "pass": name,
                        "torch": rival.mode.name,
                        "kernels": rival.profiled(work),
                    }
                rival.forget()


def steps(device: str, size: Size) -> Iterator[Row]:
    """Training and inference of complete nets, in every precision."""
    for net in size.nets:
        for precision in gpu_cases.PRECISIONS:
            for kind in gpu_cases.STEPS:
                # The memory of a case is freed before the next begins.
                row = _step(device, size, net, precision, kind)
                rate = 1e3 * size.batch / row["ms"][OURS]
                yield {"net": net, "step": kind, "precision": precision} | {
                    "images_per_second": rate,
                    **row,
                }


def _step(device: str, size: Size, net: str, precision: str, kind: str) -> Row:
    backend, rivals = gpu_ours.open_device(device, precision), _rivals(device, precision)
    work = gpu_ours.STEPS[kind](backend, net, size.batch)
    entrants: Contestants = {OURS: (work, backend.memory.synchronize)}
    for rival in rivals:
        entrants[rival.mode.name] = (rival.step(kind, net, size.batch), rival.synchronize)
    row = _compared(measure(entrants, size))
    entrants.clear()
    backend.driver.close()
    for rival in rivals:
        rival.forget()
    return row


def launches(device: str, size: Size) -> Iterator[Row]:
    """Complete steps, replayed as CUDA graphs and launched one by one."""
    for net in size.launched:
        for kind in gpu_cases.STEPS:
            backends = {
                name: gpu_ours.open_device(device, replay=replay)
                for name, replay in ((OURS, True), (ONE_BY_ONE, False))
            }
            entrants: Contestants = {
                name: (gpu_ours.STEPS[kind](backend, net, size.batch), backend.memory.synchronize)
                for name, backend in backends.items()
            }
            row = _compared(measure(entrants, size))
            # The launches that are not in graphs are those of one further step.
            row = {"net": net, "step": kind, "replays": backends[OURS].recorder.replays}
            for name, backend in backends.items():
                before = backend.launches
                entrants[name][0]()
                row[f"launches, {name}"] = backend.launches - before
            entrants.clear()
            for backend in backends.values():
                backend.driver.close()
            yield row | row


def _rivals(device: str, precision: str) -> list[Torch]:
    torch = find_torch(device)
    if torch is None:
        return []
    return [Torch(torch, device, mode) for mode in gpu_cases.MODES if mode.precision == precision]


def _compared(ms: dict[str, float]) -> Row:
    """Times, and our speed relative to the fastest of the others and to each of them."""
    others = {name: value for name, value in ms.items() if name != OURS}
    ratio = {name: value / ms[OURS] for name, value in others.items()}
    return {"ms": ms, "times_as_fast": min(ratio.values(), default=None), "ratios": ratio}


STAGES: dict[str, Callable[[str, Size], Iterator[Row]]] = {
    "machine": machine,
    "build": build,
    "bandwidth": bandwidth,
    "probes": probes,
    "step": step,
    "profile": profile,
    "layers": layers,
    "steps": steps,
    "launches": launches,
}


def main(argv: list[str] | None = None) -> int:
    """Measure, print one line per case, and write JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu.py", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", choices=("gpu", "emu"), default="gpu")
    parser.add_argument("--size", choices=gpu_cases.SIZES, default="full")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    args = parser.parse_args(argv)
    rows: list[Row] = []
    try:
        for row in STAGES[args.stage](args.device, gpu_cases.SIZES[args.size]):
            rows.append(row)
            print(_line(row), flush=True)
            write_record(args.out, {"device": args.device, "size": args.size, "cases": rows})
    except VerydeepError as error:
        print(f"benchmarks/gpu.py: {error}", file=sys.stderr)
        return 2
    return 0


def _line(row: Row) -> str:
    words = []
    for key, value in row.items():
        if isinstance(value, dict):
            words += [f"{name} {number:.3f}" for name, number in value.items() if key == "ms"]
        else:
            words.append(f"{key} {value:.3g}" if isinstance(value, float) else str(value))
    return "  ".join(words)


if __name__ == "__main__":
    sys.exit(main())
