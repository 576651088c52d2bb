"""TensorBoard: a hook that writes a run for TensorBoard, with tensorboardX."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prototxt_gen.errors import UnsupportedError, VerydeepError
from runtime.analysis.filter_tiles import first_filters, tiles
from runtime.backend.base import HostArray
from runtime.net import Net
from runtime.net.shape_net import batch_of
from runtime.solvers.display import data_wait_seconds
from runtime.solvers.hooks import Progress, RunView, Score, SolverHook, TestResult

_MOST_FILTERS = 64


def import_writer() -> Any:
    """The class SummaryWriter of tensorboardX.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as cause:
        raise UnsupportedError(
            "--tensorboard: the package tensorboardX is missing; expected the extra [tensorboard]; "
            "install it with `pip install 'verydeep[tensorboard]'`"
        ) from cause
    return SummaryWriter


class TensorBoard(SolverHook):
    """Writes scalars of displayed iterations and tests, norms, histograms, filters and the graph.

    The values are those of all replicas together, in one run. Histograms and filters are written
    with every test of the first test net.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: Any = None
        self._since = 0.0
        self._iteration = 0
        self._waited = 0.0

    def on_solve(self, solver: RunView) -> None:
        """Open the run and write the graph.

        Raises:
            VerydeepError: the folder cannot be written.
            UnsupportedError: tensorboardX is not installed.
        """
        writer = import_writer()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Values of a run that was stopped later than its snapshot are replaced.
            purge = solver.iter if solver.iter > 0 else None
            self._writer = writer(str(self.folder), purge_step=purge)
        except OSError as cause:
            raise VerydeepError(
                f"{self.folder}: the TensorBoard run cannot be written: {cause.strerror or cause}; "
                "expected a folder; choose another with --tensorboard"
            ) from cause
        self._since, self._iteration = time.perf_counter(), solver.iter
        self._waited = data_wait_seconds(solver.net)
        _write_graph(self._writer, solver.net)
        self._writer.add_text("net", f"{solver.net.name}, {solver.rule.type}", solver.iter)
        self._write_weights(solver.net, solver.iter)

    def on_gradients_ready(self, solver: RunView) -> None:
        """Write the norms of weights and gradients of a displayed iteration."""
        if solver.progress is None or not solver.progress.display:
            return
        for name, blob in zip(solver.net.params.names, solver.net.params.learnable):
            for kind, values in (("weights", blob.data.host()), ("gradients", blob.diff.host())):
                self._scalar(f"norm of {kind}/{name}", _norm(values), solver.iter)

    def on_rate(self, solver: RunView, iteration: int, rate: float) -> None:
        """Write a displayed iteration."""
        progress = solver.progress
        if progress is None or not progress.display:
            return
        self._write_progress(progress, rate)
        self._write_times(solver, iteration)

    def on_test(self, solver: RunView, result: TestResult) -> None:
        """Write the mean outputs of a test, and histograms and filters of the weights."""
        group = "test" if result.net_id == 0 else f"test {result.net_id}"
        self._scores(group, result.scores, result.iteration)
        if result.loss is not None:
            self._scalar(f"{group}/loss of the net", result.loss, result.iteration)
        if result.net_id == 0:
            self._write_weights(solver.net, result.iteration)
        self._writer.flush()

    def on_end(self, solver: RunView, reason: str) -> None:
        """Close the run."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write_progress(self, progress: Progress, rate: float) -> None:
        self._scalar("train/loss", progress.loss, progress.iteration)
        self._scalar("train/smoothed loss", progress.smoothed_loss, progress.iteration)
        self._scalar("train/learning rate", rate, progress.iteration)
        self._scores("train output", progress.scores, progress.iteration)

    def _write_times(self, solver: RunView, iteration: int) -> None:
        now, waited = time.perf_counter(), data_wait_seconds(solver.net)
        done, seconds = iteration - self._iteration, now - self._since
        if done > 0 and seconds > 0:
            images = batch_of(solver.net) * solver.engine.shards * solver.param.iter_size * done
            self._scalar("time/images per second", images / seconds, iteration)
            share = (waited - self._waited) / seconds
            self._scalar("time/share of waiting for data", share, iteration)
        self._since, self._iteration, self._waited = now, iteration, waited

    def _write_weights(self, net: Net, iteration: int) -> None:
        for name, blob in zip(net.params.names, net.params.learnable):
            values = blob.data.host()
            finite = values[np.isfinite(values)]
            if finite.size:
                self._writer.add_histogram(f"weights/{name}", finite, iteration)
        filters = first_filters(net)
        if filters is not None:
            picture = tiles(filters[:_MOST_FILTERS])
            self._writer.add_image(
                "filters of the first layer", picture, iteration, dataformats="HWC"
            )

    def _scores(self, group: str, scores: tuple[Score, ...], iteration: int) -> None:
        for score in {score.name: score for score in reversed(scores)}.values():
            self._scalar(f"{group}/{score.name}", score.value, iteration)

    def _scalar(self, name: str, value: float, iteration: int) -> None:
        self._writer.add_scalar(name, value, iteration)


def _norm(values: HostArray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).sum()))


def _write_graph(writer: Any, net: Net) -> None:
    """Write the layers as the nodes of a graph; an edge is a blob."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.graph_pb2 import GraphDef

    graph = GraphDef()
    for name, kind, sources in _nodes(net):
        graph.node.add(name=name, op=kind, input=sources)
    writer.file_writer.event_writer.add_event(Event(graph_def=graph.SerializeToString()))


def _nodes(net: Net) -> Iterator[tuple[str, str, list[str]]]:
    """The name, the type and the sources of each layer; names are made unique."""
    makers: dict[str, str] = {}
    for number, layer in enumerate(net.layers):
        name = str(layer.param.name) or f"layer {number}"
        if name in makers.values():
            name = f"{name}, layer {number}"
        yield name, layer.type, [makers[blob] for blob in layer.param.bottom if blob in makers]
        makers.update(dict.fromkeys(layer.param.top, name))
