"""NCCL: averages the gradients of solvers in several processes. Caffe: parallel.cpp (NCCL).

The name is Caffe's. Between GPUs the arrays are moved by NVIDIA's library if it is installed, else
through host memory; on CPUs they are moved through sockets. The sums are computed here, in a fixed
order, so that all ranks have the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import ClassVar

from prototxt_gen.errors import DeviceError
from runtime.backend.base import Array, Backend
from runtime.core.blob import Blob
from runtime.parallel.collective import PATIENCE, Collective
from runtime.parallel.flat_params import Layout, Segment
from runtime.parallel.links import AUTO, link_for
from runtime.parallel.links import NCCL as NVIDIA_LIBRARY
from runtime.parallel.nccl import find_library, load_nccl
from runtime.parallel.reduction import buckets_of
from runtime.parallel.sockets import CONNECT_PATIENCE, SocketCollective, new_session
from runtime.parallel.tree import Node, evaluate
from runtime.pycaffe.errors import CallError
from runtime.pycaffe.ranks import RankEngine
from runtime.pycaffe.solver import Solver
from runtime.solvers.hooks import RunView, SolverHook

log = logging.getLogger("verydeep.pycaffe")


class NCCL(SolverHook):
    """Connects a solver with those of the other ranks of one machine.

    Every process makes its solver after `set_solver_count` and `set_solver_rank`, then
    `NCCL(solver, uid)` with one uid, then calls `bcast`, `solver.add_callback(nccl)` and, to reduce
    gradients layer by layer, `solver.net.after_backward(nccl)`.

    Units: `connect_patience` and `patience` in seconds, the longest waits for the connection to all
    ranks and, after that, for another rank.
    """

    connect_patience: ClassVar[float] = CONNECT_PATIENCE
    patience: ClassVar[float] = PATIENCE

    def __init__(self, solver: Solver, uid: bytes | str) -> None:
        """Connect to the other ranks; returns when all are connected.

        Raises:
            CallError: not a solver of this module, or no uid; also a RuntimeError.
            TrainingError: a rank is missing, or two processes have the same rank.
        """
        if not isinstance(solver, Solver):
            raise CallError(
                f"NCCL: a {type(solver).__name__} is not a solver; expected NCCL(solver, uid) with "
                "a solver such as SGDSolver and the uid of NCCL.new_uid()"
            )
        session = _session(uid)
        self._net = solver.core.net
        self._backend = self._net.backend
        self._params: list[Blob] = self._net.params.learnable
        buckets = buckets_of(
            self._net, [blob.count() for blob in self._params], range(len(self._params))
        )
        self._ready = {bucket.first: bucket.ready for bucket in buckets}
        self._layer_wise = solver.param.iter_size == 1
        self._left = set(self._ready)
        self._link: Collective | None = None
        engine = solver.core.engine
        if isinstance(engine, RankEngine):
            rank = engine.rank
            collective = SocketCollective(
                session,
                rank.number,
                rank.count,
                self._backend.dtype,
                self.patience,
                self.connect_patience,
            )
            self._link = link_for(self._backend, collective, _transport(self._backend))
            engine.collective = collective
            self._check_seeds(solver.core.seed, engine)

    @staticmethod
    def new_uid() -> bytes:
        """A name for one group of processes; give it to all of them."""
        return new_session().encode()

    def bcast(self) -> None:
        """Copy the weights of rank 0 to all ranks."""
        link = self._link
        if link is None:
            return
        with self._net.exclusive():
            arrays = [blob.data.storage.device(write=True) for blob in self._params]
            counts = [blob.count() for blob in self._params]
            flat = [self._view(array, 0, count) for array, count in zip(arrays, counts)]
            sizes = [counts] + [[] for _ in range(link.size - 1)]
            incoming = link.exchange([flat if link.rank == 0 else []] * link.size, sizes)
            if link.rank:
                for target, values in zip(flat, incoming[0]):
                    self._backend.memory.copy(values, target)
            link.release()

    def on_start(self, solver: RunView) -> None:
        """See SolverHook."""
        if solver.net is not self._net:
            raise CallError(
                "NCCL: added to another solver than it was made for; expected the solver of "
                "NCCL(solver, uid); make one for each solver"
            )
        self._left = set(self._ready)

    def on_gradients_ready(self, solver: RunView) -> None:
        """Average the gradients that were not averaged layer by layer."""
        self._average(sorted(self._left))
        self._left = set(self._ready)

    def __call__(self, layer: int) -> None:
        """Average the gradients that are complete after a layer's backward pass.

        For `net.after_backward(nccl)`. With iter_size above 1 gradients are complete later, and
        are averaged by `solver.add_callback(nccl)`.
        """
        if layer == len(self._net.layers) - 1:
            self._left = set(self._ready)
        if self._layer_wise:
            complete = [index for index in sorted(self._left) if self._ready[index] == layer]
            self._average(complete)
            self._left.difference_update(complete)

    def _average(self, indices: Sequence[int]) -> None:
        """Replace gradients by their means over all ranks."""
        link = self._link
        if link is None or not indices:
            return
        blobs = [self._params[index] for index in indices]
        layout = Layout([blob.count() for blob in blobs])
        arrays = [_gradient_memory(blob) for blob in blobs]
        shares = [layout.segments(peer, link.size) for peer in range(link.size)]
        own = shares[link.rank]
        outgoing = [self._segments(arrays, share) for share in shares]
        incoming = link.exchange(outgoing, [[part.count for part in own]] * link.size)
        for addends in zip(*incoming):
            self._replace_by_mean(addends, link.rank)
        link.release()
        means = self._segments(arrays, own)
        sizes = [[part.count for part in share] for share in shares]
        for peer, parcel in enumerate(link.exchange([means] * link.size, sizes)):
            if peer != link.rank:
                self._write(arrays, shares[peer], parcel)
        link.release()

    def _replace_by_mean(self, addends: Sequence[Array], rank: int) -> None:
        """Compute the mean of the addends of all ranks in that of the own rank."""
        leaves: dict[Node, tuple[Array, bool]] = {
            (peer, peer + 1): (addend, peer == rank) for peer, addend in enumerate(addends)
        }
        total, _ = evaluate((0, len(addends)), leaves, self._add)
        self._backend.vectors.scal(1.0 / len(addends), total)

    def _add(self, left: tuple[Array, bool], right: tuple[Array, bool]) -> tuple[Array, bool]:
        """Add in place, in the own gradient if it is one of the two."""
        target, other = (right, left) if right[1] else (left, right)
        self._backend.vectors.axpy(1.0, other[0], target[0])
        return target

    def _write(
        self, arrays: Sequence[Array], parts: Sequence[Segment], parcel: Sequence[Array]
    ) -> None:
        for segment, values in zip(self._segments(arrays, parts), parcel):
            self._backend.memory.copy(values, segment)

    def _segments(self, arrays: Sequence[Array], parts: Sequence[Segment]) -> list[Array]:
        return [self._view(arrays[part.index], part.start, part.count) for part in parts]

    def _view(self, array: Array, start: int, count: int) -> Array:
        return self._backend.memory.view(array, start, (count,))

    def _check_seeds(self, seed: int, engine: RankEngine) -> None:
        seeds = engine.gather([float(seed)])
        if len({values[0] for values in seeds}) > 1 and engine.rank.number == 0:
            log.warning(
                "NCCL: the ranks have different seeds, so that the orders of shuffled records "
                "differ and some records may be read twice in an epoch; set random_seed in the "
                "solver's prototxt"
            )


def _session(uid: object) -> str:
    name = uid.decode("latin-1") if isinstance(uid, (bytes, bytearray)) else uid
    if not isinstance(name, str) or not name:
        raise CallError(
            f"NCCL: uid {uid!r}; expected the value of NCCL.new_uid(), which all ranks of a run "
            "share; call new_uid() once and give its result to all processes"
        )
    return name


def _gradient_memory(blob: Blob) -> Array:
    """The memory of the gradient of a blob and of those that share it, on the device."""
    blob.diff.mutable_dev()
    return blob.diff.storage.device(write=True)


def _transport(backend: Backend) -> str:
    if backend.shares_host_memory:
        return AUTO
    try:
        load_nccl(find_library())
    except DeviceError:
        return AUTO
    return NVIDIA_LIBRARY
