"""WeightAverage: the exponential moving average of the weights, saved with every snapshot."""

from __future__ import annotations

import glob
import logging
from pathlib import Path

import numpy as np

from prototxt_gen.errors import SnapshotError, UsageError
from runtime.backend.base import HostArray
from runtime.net import Net
from runtime.solvers.hooks import RunView, SolverHook
from runtime.weights.caffemodel import BlobData, read_caffemodel, write_caffemodel
from runtime.weights.net_weights import net_param

log = logging.getLogger("verydeep.solver")

SUFFIX = ".average.caffemodel"


class WeightAverage(SolverHook):
    """average = d * average + (1 - d) * weights after every update, on the host.

    d is min(decay, (1 + n) / (10 + n)) at update n, so that the first weights are soon forgotten.
    Every snapshot PREFIX_iter_N.caffemodel gets a PREFIX_iter_N.average.caffemodel.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise UsageError(
                f"--average-weights: expected a number between 0 and 1, got {decay:g}; correct it"
            )
        self.decay = decay
        self.averages: list[HostArray] = []
        self._iteration = 0
        """The updates that are included."""

    def on_solve(self, solver: RunView) -> None:
        """Start from the weights, or from the average of the snapshot that is resumed.

        Raises:
            SnapshotError: the average cannot be read or is of another net.
        """
        self._iteration = solver.iter
        self.averages = [blob.data.host().copy() for blob in solver.net.params.learnable]
        path = _path(solver)
        if solver.iter == 0:
            return
        if path.exists():
            _read(solver.net, self.averages, path)
        else:
            log.warning("%s is missing: the average starts from the weights", path)

    def on_iteration_end(self, solver: RunView) -> None:
        """Include the weights after an update."""
        self._include(solver)

    def on_snapshot(self, solver: RunView, files: tuple[Path, ...]) -> None:
        """Write the average next to a snapshot, and remove those of snapshots that are gone."""
        self._include(solver)
        net, path = solver.net, _path(solver)
        averages = {id(blob): array for blob, array in zip(net.params.learnable, self.averages)}
        blobs = (
            [BlobData(averages.get(id(blob), blob.data.host())) for blob in layer.blobs]
            for layer in net.layers
        )
        write_caffemodel(path, net_param(net), blobs)
        for old in path.parent.glob(f"{glob.escape(_stem(solver))}*{SUFFIX}"):
            number = old.name.removeprefix(_stem(solver)).removesuffix(SUFFIX)
            state = old.with_name(f"{_stem(solver)}{number}.state.json")
            if number.isdecimal() and old != path and not state.exists():
                old.unlink(missing_ok=True)

    def _include(self, solver: RunView) -> None:
        if solver.iter == self._iteration:
            return
        decay = min(self.decay, (1 + self._iteration) / (10 + self._iteration))
        self._iteration = solver.iter
        for average, blob in zip(self.averages, solver.net.params.learnable):
            average += np.float32(1 - decay) * (blob.data.host() - average)


def _path(solver: RunView) -> Path:
    return Path(f"{solver.param.snapshot_prefix}_iter_{solver.iter}{SUFFIX}")


def _stem(solver: RunView) -> str:
    """The beginning of the names of snapshots."""
    return f"{Path(str(solver.param.snapshot_prefix)).name}_iter_"


def _read(net: Net, averages: list[HostArray], path: Path) -> None:
    owners = {id(blob): place for place, blob in enumerate(net.params.learnable)}
    stored = {layer.name: layer.blobs for layer in read_caffemodel(path)}
    for layer in net.layers:
        for index, blob in enumerate(layer.blobs):
            place = owners.get(id(blob))
            sources = stored.get(str(layer.param.name), ())
            if place is None:
                continue
            if index >= len(sources) or not sources[index].fits(blob.shape):
                raise SnapshotError(
                    f"{path}: layer '{layer.param.name}' has no average of shape {blob.shape}; "
                    "expected the average of this net; remove the file to start a new average"
                )
            averages[place][...] = sources[index].array().reshape(blob.shape)
