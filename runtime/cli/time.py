"""Time a model layer by layer. Caffe: tools/caffe.cpp, time."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
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
    """Kernels, fills and copies that each layer asks a GPU for, forward and backward."""
    replayed: float | None = None
    """A whole pass, forward and backward, with what repeats replayed; see runtime/net/replay.py."""


Meter = Callable[[], float]
"""What has passed, or happened, so far."""

# After so many passes whatever repeats is in a graph.
_SETTLED = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt")
    parser.add_argument("--weights", metavar="FILE", help="weights (default: as the fillers say)")
    parser.add_argument(
        "--iterations", type=int, default=50, metavar="N", help="passes (default: %(default)s)"
    )
    parser.add_argument("--phase", choices=("TRAIN", "TEST"), default="TRAIN")
    parser.add_argument("--forward_only", action="store_true", help="leave out the backward pass")
    add_device_arguments(parser)
    add_state_arguments(parser)
    add_list_arguments(parser)
    add_force_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    setup_logging()
    if args.iterations < 1:
        raise ProtoError(f"--iterations: expected at least 1, got {args.iterations}; correct it")
    phase = proto.TRAIN if args.phase == "TRAIN" else proto.TEST
    backend = open_backend(args)
    context = RunContext(confine_lists=args.confine_lists, force=args.force)
    weights = [args.weights] if args.weights else []
    with open_net(args.model, phase, backend, context, args.level, stages(args), weights) as net:
        timing = measure(net, args.iterations, args.forward_only)
        print(json_table(net, timing) if args.json else table(net, timing))
    return 0


def measure(net: Net, iterations: int, forward_only: bool) -> Timing:
    """Mean times of passes after a first one that is not counted; logs Caffe's lines."""
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
        timing.forward += _forward(net, timing.layer_forward, clock)
        if not forward_only:
            timing.backward += _backward(net, timing.layer_backward, clock)
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
        timing.replayed = _whole_passes(net, iterations, forward_only)
    return timing


def _launches(net: Net, forward_only: bool) -> list[tuple[int, int]] | None:
    """What each layer asks for in a pass; None where nothing is launched."""
    backend = net.backend
    if backend.launches is None:
        return None
    forward, backward = ([0.0] * len(net.layers) for _ in range(2))
    _forward(net, forward, lambda: backend.launches or 0)
    if not forward_only:
        _backward(net, backward, lambda: backend.launches or 0)
    return [(int(ahead), int(back)) for ahead, back in zip(forward, backward)]


def _whole_passes(net: Net, iterations: int, forward_only: bool) -> float:
    """The mean time of a pass that nobody looks into, in ms."""
    start = 0.0
    for iteration in range(-_SETTLED, iterations):
        if iteration == 0:
            net.backend.memory.synchronize()
            start = time.perf_counter()
        net.clear_param_diffs()
        net.forward()
        if not forward_only:
            net.backward()
    net.backend.memory.synchronize()
    return 1e3 * (time.perf_counter() - start) / iterations


def _forward(net: Net, spent: list[float], meter: Meter) -> float:
    """Add to `spent` what a meter counts over each layer; return what it counts over all."""
    begin = last = meter()
    for i in range(len(net.layers)):
        net.forward_layer(i)
        now = meter()
        spent[i] += now - last
        last = now
    net.context.pass_number += 1
    return last - begin


def _backward(net: Net, spent: list[float], meter: Meter) -> float:
    """Of every layer, as Caffe does: also where no loss asks for it, as in a deploy net."""
    begin = last = meter()
    for i in reversed(range(len(net.layers))):
        net.layers[i].backward(net.tops[i], net.bottom_need_backward[i], net.bottoms[i])
        now = meter()
        spent[i] += now - last
        last = now
    return last - begin


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


def algorithm(net: Net, index: int) -> str:
    """How the backend computes a layer, where it had a choice."""
    return str(getattr(getattr(net.layers[index], "plan", None), "algorithm", ""))


def table(net: Net, timing: Timing) -> str:
    """Layers under each other, times in ms."""
    rows: list[tuple[str, ...]] = [("layer", "type", "forward", "backward", "algorithm")]
    rows += [
        (
            layer.param.name,
            layer.type,
            f"{timing.layer_forward[i]:.3f}",
            f"{timing.layer_backward[i]:.3f}",
            algorithm(net, i),
        )
        for i, layer in enumerate(net.layers)
    ]
    rows.append(("all", "", f"{timing.forward:.3f}", f"{timing.backward:.3f}", ""))
    if timing.launches is not None:
        columns = [("launches", "replayed"), *_launch_columns(net, timing.launches)]
        rows = [(*row[:4], *more, row[4]) for row, more in zip(rows, columns)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{word:{'<' if column < 2 or column > 3 else '>'}{width}}"
            for column, (word, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
    if timing.replayed is not None:
        lines.append(f"A whole pass, with what is replayed: {timing.replayed:.3f} ms")
    return "\n".join(lines)


def _launch_columns(net: Net, launches: list[tuple[int, int]]) -> list[tuple[str, str]]:
    """Of each layer and of all: launches forward+backward, and which of both are in a graph."""
    forward, backward = net.replayed
    words = {(True, True): "both", (True, False): "forward", (False, True): "backward"}
    each = [
        (f"{ahead}+{back}", words.get((i in forward, i in backward), ""))
        for i, (ahead, back) in enumerate(launches)
    ]
    sums = [sum(column) for column in zip(*launches)]
    return [*each, (f"{sums[0]}+{sums[1]}", "")]


def json_table(net: Net, timing: Timing) -> str:
    """The same as one JSON object; times in ms."""
    layers = [
        {
            "name": layer.param.name,
            "type": layer.type,
            "forward_ms": timing.layer_forward[i],
            "backward_ms": timing.layer_backward[i],
            "algorithm": algorithm(net, i) or None,
        }
        for i, layer in enumerate(net.layers)
    ]
    if timing.launches is not None:
        for i, layer in enumerate(layers):
            layer["forward_launches"], layer["backward_launches"] = timing.launches[i]
            layer["forward_replayed"], layer["backward_replayed"] = (
                i in found for found in net.replayed
            )
    means = {"forward_ms": timing.forward, "backward_ms": timing.backward, "ms": timing.total}
    if timing.replayed is not None:
        means["replayed_ms"] = timing.replayed
    return json.dumps({**means, "layers": layers})
