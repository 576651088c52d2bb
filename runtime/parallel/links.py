"""Links: how arrays get from one device's memory to another's, beside the work on the devices.

    staged   through pinned host memory, and from there by threads or MPI
    peer     from device to device, within one process (PCIe or NVLink)
    nccl     by NVIDIA's library, within one process or between several (nccl.py)

A link has Collective's methods for arrays of a backend. Copies have a stream of their own: they
wait for the compute stream up to where they were posted, and go on while it goes on. Only slices
move; what is added to what, and in which order, is reduction.py's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from prototxt_gen.errors import DeviceError
from runtime.backend.base import Array, Backend, HostArray
from runtime.parallel.collective import Collective, Parcel, Pending
from runtime.parallel.device_link import DeviceLink, Sizes
from runtime.parallel.nccl import NcclLink

log = logging.getLogger("verydeep.parallel")

AUTO, STAGED, PEER, NCCL = "auto", "staged", "peer", "nccl"
TRANSPORTS = (AUTO, PEER, NCCL, STAGED)


class StagedLink(DeviceLink):
    """By way of the host: downloads run beside the computation, the rest when it is over."""

    def __init__(self, backend: Any, inner: Collective) -> None:
        super().__init__(backend, inner)
        self._pinned: dict[int, list[HostArray]] = {}
        self._staged: list[HostArray] = []

    def start(
        self, outgoing: Sequence[Parcel], sizes: Sizes, incoming: list[Parcel], ready: Any
    ) -> Pending:
        """See DeviceLink.start."""
        copies: dict[tuple[int, int], HostArray] = {}
        staged: list[Parcel] = [[] for _ in range(self.size)]
        for peer in range(self.size):
            for array in outgoing[peer] if peer != self.rank else ():
                place = (array.address, array.size)
                if place not in copies:
                    copies[place] = self._stage(array)
                staged[peer].append(copies[place])
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
        """See Collective. Uploads read the senders' memory, so they have to be over."""
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
        staged: list[Parcel],
        sizes: Sizes,
        incoming: list[Parcel],
        done: Any,
    ) -> None:
        self._link, self._staged, self._sizes = link, staged, sizes
        self._incoming, self._done = incoming, done

    def finish(self) -> list[Parcel]:
        """See Pending.finish."""
        link = self._link
        link.driver.finish(self._done)
        for arrays, hosts in zip(self._incoming, link.inner.exchange(self._staged, self._sizes)):
            for array, host in zip(arrays, hosts):
                link.backend.memory.upload(np.ascontiguousarray(host), array)
        return self._incoming


class PeerLink(DeviceLink):
    """From device to device: the receiver fetches, once the sender's event has passed."""

    in_process = True

    def start(
        self, outgoing: Sequence[Parcel], sizes: Sizes, incoming: list[Parcel], ready: Any
    ) -> Pending:
        """See DeviceLink.start."""
        offers: list[Parcel] = [[(self.driver, ready, arrays)] for arrays in outgoing]
        return _Offered(self, self.inner.post(offers, sizes), incoming)

    def release(self) -> None:
        """See Collective: later work may overwrite what the others have fetched by then."""
        fetched = self.driver.event()
        self.driver.record(fetched, self.stream)
        told = self.inner.exchange([[fetched]] * self.size, [[1]] * self.size)
        for peer, (event,) in enumerate(told):
            if peer != self.rank:
                self.driver.wait(event)
        self.inner.release()
        super().release()


class _Offered:
    """See Pending."""

    def __init__(self, link: PeerLink, offers: Pending, incoming: list[Parcel]) -> None:
        self._link, self._offers, self._incoming = link, offers, incoming

    def finish(self) -> list[Parcel]:
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


class ChosenLink:
    """The link that --transport names, made when all replicas are there to agree on it."""

    def __init__(self, backend: Any, inner: Collective, transport: str = AUTO) -> None:
        self.backend, self.inner, self.transport = backend, inner, transport
        self.rank, self.size = inner.rank, inner.size
        self.in_process = inner.in_process
        self._link: Collective | None = None

    def post(self, outgoing: Sequence[Parcel], sizes: Sizes) -> Pending:
        """See Collective."""
        return self._chosen().post(outgoing, sizes)

    def exchange(self, outgoing: Sequence[Parcel], sizes: Sizes) -> list[Parcel]:
        """See Collective."""
        return self._chosen().exchange(outgoing, sizes)

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
        fault = "" if self.transport == STAGED else self._no_peers()
        if fault and self.transport == PEER:
            raise DeviceError(
                f"transport 'peer': {fault}; expected devices that read each other's memory; use "
                "--transport staged, or nccl"
            )
        if fault and self.rank == 0:
            log.warning("Gradients travel through host memory (transport 'staged'): %s", fault)
        elif self.rank == 0:
            name = "through host memory" if self.transport == STAGED else "from device to device"
            log.info("Gradients travel %s", name)
        link = StagedLink if fault or self.transport == STAGED else PeerLink
        return link(self.backend, self.inner)

    def _no_peers(self) -> str:
        """Why the devices cannot copy from each other, for all replicas alike; '' if they can."""
        if not self.inner.in_process:
            return "the replicas are processes of their own"
        driver = self.backend.driver
        drivers = [told[0] for told in self.inner.exchange([[driver]] * self.size, [])]
        blind = next((d.device_id for d in drivers if not driver.can_access_peer(d)), None)
        faults = self.inner.exchange([[driver.device_id, blind]] * self.size, [])
        self.inner.release()
        for device, other in faults:
            if other is not None:
                return f"{driver.name} {device} cannot read the memory of {driver.name} {other}"
        return ""


def link_for(backend: Backend, collective: Collective, transport: str = AUTO) -> Collective:
    """What moves a backend's arrays between replicas.

    Raises:
        DeviceError: a transport between GPUs is asked for, and this is none.
    """
    if backend.shares_host_memory:
        if transport != AUTO:
            raise DeviceError(
                f"transport '{transport}': backend '{backend.name}' computes in host memory; "
                "expected GPUs; leave --transport out"
            )
        return collective
    return collective if collective.size == 1 else ChosenLink(backend, collective, transport)
