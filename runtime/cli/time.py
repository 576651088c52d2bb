"""Measure the time of each layer of a model. Caffe: tools/caffe.cpp, time."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prototxt_gen import proto
from prototxt_gen.errors import UsageError
from runtime.analysis.throughput import (
    gflop_per_s,
    rate_columns,
    throughput,
    throughput_lines,
    work_of,
)
from runtime.cli.devices import (
    add_device_arguments,
    add_force_argument,
    add_list_arguments,
    add_state_arguments,
    open_backend,
    stages,
)
from runtime.core.context import RunContext
from runtime.logs.glog import caffe_log, number, setup_logging
from runtime.net import Net
from runtime.weights.net_file import open_net

NAME = "time"
SUMMARY = "time a model forward and backward, layer by layer"
EXAMPLE = "verydeep time --model nets/D/deploy.prototxt --iterations 10"


@dataclass
class Timing:
    """Mean times. Units: ms."""

    forward: float = 0.0
    backward: float = 0.0
    total: float = 0.0
    layer_forward: list[float] = field(default_factory=list)
    layer_backward: list[float] = field(default_factory=list)
    launches: list[tuple[int, int]] | None = None
    """Kernels, fills and copies that each layer launches, forward and backward."""
    replayed: float | None = None
    """A pass forward and backward with replay; see runtime/net/replay.py."""


Meter = Callable[[], float]
"""A count that never decreases, such as a time in ms."""

_WARM_UP = 6
"""Passes after which everything that repeats is in a graph."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt")
    parser.add_argument(
        "--weights", metavar="FILE", help="weights (default: the values of the fillers)"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=50,
        metavar="N",
        help="number of passes (default: %(default)s)",
    )
    parser.add_argument(
        "--phase",
        choices=("TRAIN", "TEST"),
        default="TRAIN",
        help="the phase of the net (default: %(default)s)",
    )
    parser.add_argument("--forward_only", action="store_true", help="time the forward pass only")
    add_device_arguments(parser)
    add_state_arguments(parser)
    add_list_arguments(parser)
    add_force_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging()
    if args.iterations < 1:
        raise UsageError(f"--iterations: expected at least 1, got {args.iterations}; raise it")
    phase = proto.TRAIN if args.phase == "TRAIN" else proto.TEST
    backend = open_backend(args)
    context = RunContext(confine_lists=args.confine_lists, force=args.force)
    weights = [args.weights] if args.weights else []
    with open_net(args.model, phase, backend, context, args.level, stages(args), weights) as net:
        timing = measure(net, args.iterations, args.forward_only)
        print(json_table(net, timing) if args.json else table(net, timing))
    return 0


def measure(net: Net, iterations: int, forward_only: bool) -> Timing:
    """Mean times of passes after a first one that is not counted; logs Caffe's lines.

    Raises:
        DataError, ShapeError, DeviceError: see Net.forward.
    """
    caffe_log("caffe.cpp:360", "Performing Forward")
    caffe_log("caffe.cpp:365", "Initial loss: %s", number(net.forward()))
    if not forward_only:
        caffe_log("caffe.cpp:366", "Performing Backward")
        net.backward()
    count = len(net.layers)
    timing = Timing(layer_forward=[0.0] * count, layer_backward=[0.0] * count)
    caffe_log("caffe.cpp:375", "*** Benchmark begins ***")
    caffe_log("caffe.cpp:376", "Testing for %d iterations.", iterations)

    def clock() -> float:
        net.backend.memory.synchronize()
        return 1e3 * time.perf_counter()

    for iteration in range(iterations):
        start = time.perf_counter()
        timing.forward += _measure_forward(net, timing.layer_forward, clock, not forward_only)
        if not forward_only:
            timing.backward += _measure_backward(net, timing.layer_backward, clock)
        lapse = 1e3 * (time.perf_counter() - start)
        timing.total += lapse
        caffe_log(
            "caffe.cpp:404",
            "Iteration: %d forward-backward time: %s ms.",
            iteration + 1,
            number(lapse),
        )
    total = timing.total
    timing.forward /= iterations
    timing.backward /= iterations
    timing.total /= iterations
    timing.layer_forward = [value / iterations for value in timing.layer_forward]
    timing.layer_backward = [value / iterations for value in timing.layer_backward]
    _log(net, timing, total)
    timing.launches = _launches(net, forward_only)
    if net.backend.recorder is not None:
        timing.replayed = _measure_replayed(net, iterations, forward_only)
    return timing


def _launches(net: Net, forward_only: bool) -> list[tuple[int, int]] | None:
    """Launches of each layer in a pass, forward and backward; None on a CPU."""
    backend = net.backend
    if backend.launches is None:
        return None
    forward, backward = ([0.0] * len(net.layers) for _ in range(2))
    _measure_forward(net, forward, lambda: backend.launches or 0, not forward_only)
    if not forward_only:
        _measure_backward(net, backward, lambda: backend.launches or 0)
    return [(int(ahead), int(back)) for ahead, back in zip(forward, backward)]


def _measure_replayed(net: Net, iterations: int, forward_only: bool) -> float:
    """The mean time of a pass with replay, in ms."""
    start = 0.0
    for iteration in range(-_WARM_UP, iterations):
        if iteration == 0:
            net.backend.memory.synchronize()
            start = time.perf_counter()
        net.clear_param_diffs()
        net.forward()
        if not forward_only:
            net.backward()
    net.backend.memory.synchronize()
    return 1e3 * (time.perf_counter() - start) / iterations


def _measure_forward(net: Net, layers: list[float], meter: Meter, every_layer: bool) -> float:
    """Add the meter's increase in each layer to `layers`; returns the increase in all of them."""
    lap = _Laps(layers, meter)
    net.forward(after_layer=lap, every_layer=every_layer)
    return lap.total


def _measure_backward(net: Net, layers: list[float], meter: Meter) -> float:
    """Like `_measure_forward`. Every layer runs, as in Caffe, even if no loss needs it."""
    lap = _Laps(layers, meter)
    net.backward(after_layer=lap, every_layer=True)
    return lap.total


class _Laps:
    """Adds the increase of a meter since the previous layer to an entry for each layer."""

    def __init__(self, layers: list[float], meter: Meter) -> None:
        self._layers = layers
        self._meter = meter
        self._first = self._last = meter()

    def __call__(self, index: int) -> None:
        value = self._meter()
        self._layers[index] += value - self._last
        self._last = value

    @property
    def total(self) -> float:
        return self._last - self._first


def _log(net: Net, timing: Timing, total: float) -> None:
    caffe_log("caffe.cpp:407", "Average time per layer: ")
    for name, forward, backward in zip(
        net.layer_names, timing.layer_forward, timing.layer_backward
    ):
        caffe_log("caffe.cpp:410", "%10s\tforward: %s ms.", name, number(forward))
        caffe_log("caffe.cpp:413", "%10s\tbackward: %s ms.", name, number(backward))
    caffe_log("caffe.cpp:418", "Average Forward pass: %s ms.", number(timing.forward))
    caffe_log("caffe.cpp:420", "Average Backward pass: %s ms.", number(timing.backward))
    caffe_log("caffe.cpp:422", "Average Forward-Backward: %s ms.", number(timing.total))
    caffe_log("caffe.cpp:424", "Total Time: %s ms.", number(total))
    caffe_log("caffe.cpp:425", "*** Benchmark ends ***")


def table(net: Net, timing: Timing) -> str:
    """One row per layer, and the rates of the passes."""
    rates = throughput(net, timing.forward, timing.backward)
    rows: list[tuple[str, ...]] = [
        ("layer", "type", "forward", "backward", "forward", "backward", "algorithm"),
        ("", "", "ms", "ms", "GFLOP/s", "GFLOP/s", ""),
    ]
    columns = rate_columns(net, timing.layer_forward, timing.layer_backward)
    rows += [
        (
            layer.param.name,
            layer.type,
            f"{timing.layer_forward[i]:.3f}",
            f"{timing.layer_backward[i]:.3f}",
            *columns[i],
            layer.algorithm,
        )
        for i, layer in enumerate(net.layers)
    ]
    all_rates = [f"{rate.gflop:.2f}" if rate else "" for rate in (rates.forward, rates.backward)]
    rows.append(("all", "", f"{timing.forward:.3f}", f"{timing.backward:.3f}", *all_rates, ""))
    if timing.launches is not None:
        launches = [("launches", "replayed"), ("", ""), *_launch_columns(net, timing.launches)]
        rows = [(*row[:-1], *more, row[-1]) for row, more in zip(rows, launches)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{word:{'>' if 2 <= column <= 5 else '<'}{width}}"
            for column, (word, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    lines += ["", *throughput_lines(rates)]
    if timing.replayed is not None:
        lines.append(f"Forward and backward with replay: {timing.replayed:.3f} ms")
    return "\n".join(lines)


def _launch_columns(net: Net, launches: list[tuple[int, int]]) -> list[tuple[str, str]]:
    """For each layer and for all: launches forward+backward, and the passes that are in a graph."""
    forward, backward = net.replayed
    words = {(True, True): "both", (True, False): "forward", (False, True): "backward"}
    rows = [
        (f"{ahead}+{back}", words.get((i in forward, i in backward), ""))
        for i, (ahead, back) in enumerate(launches)
    ]
    sums = [sum(column) for column in zip(*launches)]
    return [*rows, (f"{sums[0]}+{sums[1]}", "")]


def json_table(net: Net, timing: Timing) -> str:
    """The table as one JSON object."""
    layers = [
        {
            "name": layer.param.name,
            "type": layer.type,
            "forward_ms": timing.layer_forward[i],
            "backward_ms": timing.layer_backward[i],
            "forward_gflop_per_s": gflop_per_s(work.forward, timing.layer_forward[i]),
            "backward_gflop_per_s": gflop_per_s(work.backward, timing.layer_backward[i]),
            "algorithm": layer.algorithm or None,
        }
        for i, (layer, work) in enumerate(zip(net.layers, work_of(net)))
    ]
    if timing.launches is not None:
        for i, layer in enumerate(layers):
            layer["forward_launches"], layer["backward_launches"] = timing.launches[i]
            layer["forward_replayed"], layer["backward_replayed"] = (
                i in replayed for replayed in net.replayed
            )
    means = {"forward_ms": timing.forward, "backward_ms": timing.backward, "ms": timing.total}
    if timing.replayed is not None:
        means["replayed_ms"] = timing.replayed
    rates = throughput(net, timing.forward, timing.backward).as_dict()
    return json.dumps({**means, "throughput": rates, "layers": layers})
