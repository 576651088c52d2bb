"""Times the compiled convolutions on VGG's layers, compared with sgemm and, if installed, PyTorch.

Every round runs all contestants one after the other, so that a slow period of the machine affects
all of them; the results are medians, and medians of the ratios within a round. Rates refer to the
operations of the direct algorithm, so those of Winograd's exceed those of sgemm.

    python benchmarks/native_conv.py --batch 8 --threads 2 --against torch --json conv.json
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from record import write_record
from rich.progress import track
from threadpoolctl import threadpool_limits

from prototxt_gen.geometry import ConvGeometry
from runtime.backend.base import Epilogue
from runtime.backend.cpu import native_library
from runtime.backend.cpu.lanes import aligned_empty, default_threads
from runtime.backend.cpu.native_conv import NativeConvolution
from runtime.backend.cpu.native_library import NativeLibrary

Host = npt.NDArray[np.float32]
Runs = dict[str, Callable[[], object]]
# Inputs, outputs, size of the map, and the number of such layers in net D (paper: Table 1).
VGG_D = (
    (3, 64, 224, 1),
    (64, 64, 224, 1),
    (64, 128, 112, 1),
    (128, 128, 112, 1),
    (128, 256, 56, 1),
    (256, 256, 56, 2),
    (256, 512, 28, 1),
    (512, 512, 28, 2),
    (512, 512, 14, 3),
)
_SGEMM = 1024
# Seconds of pause before each run: threads of OpenBLAS and OpenMP spin for a while after work.
_REST = 0.1


@dataclass
class Result:
    """The results of one layer. Units: ms; rates in GFLOP/s of the direct algorithm."""

    geometry: str
    algorithm: str
    layers: int
    gflop: float
    sgemm_rate: float
    median: dict[str, float]
    ratio: dict[str, float] = field(default_factory=dict)
    """The medians of the ratios of the others' times to ours within a round."""


def normal(*shape: int) -> Host:
    out = aligned_empty(int(np.prod(shape)), np.dtype(np.float32)).reshape(shape)
    out[...] = np.random.default_rng(0).standard_normal(shape, np.float32)
    return out


def ours(library: NativeLibrary, geom: ConvGeometry, data: dict[str, Host]) -> Runs:
    """A training step of one layer, which transforms the filters for each direction.

    Shapes: x (N,C,H,W), w (K,C,R,S), y and dy (N,K,P,Q) in `data`.
    """
    conv = NativeConvolution(library)
    plan = conv.plan(geom)
    x, w, b, y, dy, dx, dw = (data[name] for name in ("x", "w", "b", "y", "dy", "dx", "dw"))

    def backward() -> None:
        if geom.c > 3:  # the first layer of a net needs no gradient of its input
            conv.backward_data(plan, dy, w, dx, None)
        conv.backward_weight(plan, x, dy, dw)

    return {
        "forward": lambda: conv.forward(plan, x, w, Epilogue(b), y, None),
        "backward": backward,
    }


def torch_runs(geom: ConvGeometry, data: dict[str, Host], threads: int) -> Runs:
    """PyTorch in both of its layouts."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(threads)
    runs: Runs = {}
    layouts = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
    for name, layout in layouts.items():
        x, w, dy = (
            torch.from_numpy(data[key]).contiguous(memory_format=layout) for key in ("x", "w", "dy")
        )
        bias = torch.from_numpy(data["b"])
        output_mask = [geom.c > 3, True, True]
        shape = ([geom.k], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, output_mask)
        runs[f"torch {name} forward"] = lambda x=x, w=w, bias=bias: torch.conv2d(
            x, w, bias, padding=1
        )
        runs[f"torch {name} backward"] = lambda x=x, w=w, dy=dy, shape=shape: (
            torch.ops.aten.convolution_backward(dy, x, w, *shape)
        )
    return runs


def rounds(runs: Runs, count: int) -> dict[str, list[float]]:
    """Times of each contestant in each round, after one round for warming up. Units: ms."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(count + 1):
        for name, run in runs.items():
            time.sleep(_REST)
            start = time.perf_counter()
            run()
            if number:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def measure(
    library: NativeLibrary, layer: tuple[int, int, int, int], batch: int, count: int, torch: bool
) -> Result:
    c, k, size, layers = layer
    geom = ConvGeometry(batch, c, size, size, k, (3, 3), (1, 1))
    data = {
        "x": normal(*geom.in_shape),
        "w": normal(*geom.weight_shape),
        "b": normal(k),
        "y": normal(*geom.out_shape),
        "dy": normal(*geom.out_shape),
        "dx": normal(*geom.in_shape),
        "dw": normal(*geom.weight_shape),
    }
    square, product = normal(_SGEMM, _SGEMM), normal(_SGEMM, _SGEMM)
    runs: Runs = {"sgemm": lambda: np.matmul(square, square, out=product)}
    runs |= ours(library, geom, data)
    if torch:
        runs |= torch_runs(geom, data, library.threads)
    times = rounds(runs, count)
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = {
        name: statistics.median(a / b for a, b in zip(values, times[name.split()[-1]], strict=True))
        for name, values in times.items()
        if name.startswith("torch")
    }
    rate = 2e-6 * _SGEMM**3 / median["sgemm"]
    plan = NativeConvolution(library).plan(geom)
    gflop = 2e-9 * geom.macs
    return Result(str(geom), plan.algorithm, layers, gflop, rate, median, ratio)


def line(r: Result) -> str:
    share = r.gflop / r.median["forward"] * 1e3 / r.sgemm_rate
    text = (
        f"{r.geometry:42s} {r.algorithm:30s} forward {r.median['forward']:8.2f} ms "
        f"({share:4.2f} of sgemm)  backward {r.median['backward']:8.2f} ms"
    )
    return text + "".join(f"  {name} x{value:.2f}" for name, value in r.ratio.items())


def totals(results: list[Result]) -> dict[str, float]:
    """The sums over all layers. Units: ms."""
    names = [name for name in results[0].median if name != "sgemm"]
    return {name: sum(r.layers * r.median[name] for r in results) for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--isa", help="instruction set (default: the best)")
    parser.add_argument("--against", choices=("torch",), help="a peer to compare with")
    parser.add_argument("--json", metavar="FILE", help="write the results here")
    args = parser.parse_args()
    library = native_library.load(args.threads, args.isa)
    if library is None:
        print(native_library.why_not(), file=sys.stderr)
        return 2
    torch = args.against == "torch" and importlib.util.find_spec("torch") is not None
    if args.against and not torch:
        print("torch is not installed; pip install torch, or leave --against out", file=sys.stderr)
        return 2
    results = []
    with threadpool_limits(args.threads, user_api="blas"):
        for layer in track(VGG_D, "layers", disable=not sys.stderr.isatty()):
            results.append(measure(library, layer, args.batch, args.rounds, torch))
            print(line(results[-1]), flush=True)
    total = totals(results)
    print("net D, all convolutions, ms:", {name: round(ms, 1) for name, ms in total.items()})
    if args.json:
        head = {"isa": library.isa, "threads": args.threads, "batch": args.batch}
        layers = [asdict(result) for result in results]
        write_record(Path(args.json), head | {"layers": layers, "total": total})
    return 0


if __name__ == "__main__":
    sys.exit(main())
