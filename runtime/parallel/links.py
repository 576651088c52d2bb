"""Links: transports of arrays between the memories of devices, in parallel with computation.

    staged   through pinned host memory, and from there by threads or MPI
    peer     from device to device, within one process (PCIe or NVLink)
    nccl     by NVIDIA's library, within one process or between several (nccl.py)

A link has Collective's methods for arrays of a backend. Copies run on a stream of their own, which
waits for the work that was on the compute stream when they were posted. Links only copy; additions
and their order are in reduction.py.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError, UsageError
from runtime.backend.base import Array, Backend, HostArray
from runtime.parallel.collective import Collective, Message, Pending
from runtime.parallel.device_link import DeviceLink, Sizes
from runtime.parallel.nccl import NcclLink

log = logging.getLogger("verydeep.parallel")

AUTO, STAGED, PEER, NCCL = "auto", "staged", "peer", "nccl"
TRANSPORTS = (AUTO, PEER, NCCL, STAGED)


class StagedLink(DeviceLink):
    """Copies through host memory: downloads run during the computation, the rest afterwards."""

    def __init__(self, backend: Any, inner: Collective) -> None:
        super().__init__(backend, inner)
        self._pinned: dict[int, list[HostArray]] = {}
        self._staged: list[HostArray] = []

    def start(
        self, outgoing: Sequence[Message], sizes: Sizes, incoming: list[Message], ready: Any
    ) -> Pending:
        """See DeviceLink.start."""
        copies: dict[tuple[int, int], HostArray] = {}
        staged: list[Message] = [[] for _ in range(self.size)]
        for peer in range(self.size):
            for array in outgoing[peer] if peer != self.rank else ():
                key = (array.address, array.size)
                if key not in copies:
                    copies[key] = self._stage(array)
                staged[peer].append(copies[key])
        done = self.driver.event()
        self.driver.record(done, self.stream)
        others = [[] if peer == self.rank else sizes[peer] for peer in range(self.size)]
        return _Staged(self, staged, others, incoming, done)

    def _stage(self, array: Array) -> HostArray:
        spare = self._pinned.get(array.size)
        host = spare.pop() if spare else self.driver.pinned(array.nbytes).view(array.dtype)
        self._staged.append(host)
        self.driver.download(array.address, host, self.stream)
        return host

    def release(self) -> None:
        """See Collective. Waits for the uploads, which read the senders' memory."""
        uploaded = self.driver.event()
        self.driver.record(uploaded)
        self.driver.finish(uploaded)
        self.inner.release()
        super().release()
        for host in self._staged:
            self._pinned.setdefault(host.size, []).append(host)
        self._staged.clear()


class _Staged:
    """See Pending."""

    def __init__(
        self,
        link: StagedLink,
        staged: list[Message],
        sizes: Sizes,
        incoming: list[Message],
        done: Any,
    ) -> None:
        self._link, self._staged, self._sizes = link, staged, sizes
        self._incoming, self._done = incoming, done

    def finish(self) -> list[Message]:
        """See Pending.finish."""
        link = self._link
        link.driver.finish(self._done)
        for arrays, hosts in zip(self._incoming, link.inner.exchange(self._staged, self._sizes)):
            for array, host in zip(arrays, hosts):
                link.backend.memory.upload(np.ascontiguousarray(host), array)
        return self._incoming


class PeerLink(DeviceLink):
    """Copies from device to device: the receiver copies after the sender's event has passed."""

    in_process = True

    def start(
        self, outgoing: Sequence[Message], sizes: Sizes, incoming: list[Message], ready: Any
    ) -> Pending:
        """See DeviceLink.start."""
        offers: list[Message] = [[(self.driver, ready, arrays)] for arrays in outgoing]
        return _Offered(self, self.inner.post(offers, sizes), incoming)

    def release(self) -> None:
        """See Collective. Later work on the device waits until the others have copied."""
        copied = self.driver.event()
        self.driver.record(copied, self.stream)
        events = self.inner.exchange([[copied]] * self.size, [[1]] * self.size)
        for peer, (event,) in enumerate(events):
            if peer != self.rank:
                self.driver.wait(event)
        self.inner.release()
        super().release()


class _Offered:
    """See Pending."""

    def __init__(self, link: PeerLink, offers: Pending, incoming: list[Message]) -> None:
        self._link, self._offers, self._incoming = link, offers, incoming

    def finish(self) -> list[Message]:
        """See Pending.finish."""
        link, driver = self._link, self._link.driver
        for peer, ((sender, ready, arrays),) in enumerate(self._offers.finish()):
            if peer == link.rank or not arrays:
                continue
            driver.wait(ready, link.stream)
            for source, target in zip(arrays, self._incoming[peer]):
                driver.copy_peer(sender, source.address, target.address, target.nbytes, link.stream)
        link.passed()
        return self._incoming


class ChosenLink(Collective):
    """The link of --transport, created by the first exchange, when all replicas exist."""

    def __init__(self, backend: Any, inner: Collective, transport: str = AUTO) -> None:
        self.backend, self.inner, self.transport = backend, inner, transport
        self.rank, self.size = inner.rank, inner.size
        self.in_process = inner.in_process
        self._link: Collective | None = None

    def post(self, outgoing: Sequence[Message], sizes: Sizes) -> Pending:
        """See Collective."""
        return self._chosen().post(outgoing, sizes)

    def release(self) -> None:
        """See Collective."""
        self._chosen().release()

    def abort(self) -> None:
        """See Collective."""
        if self._link is None:
            self.inner.abort()
        else:
            self._link.abort()

    def close(self) -> None:
        """See Collective."""
        if self._link is not None:
            self._link.close()

    def _chosen(self) -> Collective:
        if self._link is None:
            self._link = self._choose()
        return self._link

    def _choose(self) -> Collective:
        if self.transport == NCCL:
            return NcclLink(self.backend, self.inner)
        fault = "" if self.transport == STAGED else self._peer_fault()
        if fault and self.transport == PEER:
            raise DeviceError(
                f"transport 'peer': {fault}; expected devices with access to each other's "
                "memory; use --transport staged, or nccl"
            )
        if fault and self.rank == 0:
            log.warning("Gradients are sent through host memory (transport 'staged'): %s", fault)
        elif self.rank == 0:
            path = "through host memory" if self.transport == STAGED else "from device to device"
            log.info("Gradients are sent %s", path)
        link = StagedLink if fault or self.transport == STAGED else PeerLink
        return link(self.backend, self.inner)

    def _peer_fault(self) -> str:
        """The reason why devices cannot copy from each other, equal on all replicas; or ''."""
        if not self.inner.in_process:
            return "the replicas are separate processes"
        driver = self.backend.driver
        drivers = [message[0] for message in self.inner.exchange([[driver]] * self.size, [])]
        denied = next((d.device_id for d in drivers if not driver.can_access_peer(d)), None)
        faults = self.inner.exchange([[driver.device_id, denied]] * self.size, [])
        self.inner.release()
        for device, other in faults:
            if other is not None:
                return f"{driver.name} {device} cannot read the memory of {driver.name} {other}"
        return ""


def link_for(backend: Backend, collective: Collective, transport: str = AUTO) -> Collective:
    """The transport of a backend's arrays between replicas.

    Raises:
        UsageError: a transport between GPUs is requested for another device.
    """
    if backend.shares_host_memory:
        if transport != AUTO:
            raise UsageError(
                f"--transport {transport}: backend '{backend.name}' computes in host memory; "
                "expected GPUs; omit --transport"
            )
        return collective
    return collective if collective.size == 1 else ChosenLink(backend, collective, transport)
