"""Collective over sockets: replicas that are processes of one machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prototxt_gen.errors import TrainingError
from runtime.backend.base import HostArray
from runtime.parallel.collective import PATIENCE, Collective, Message, PeerFailedError, Pending

log = logging.getLogger("verydeep.parallel")

CONNECT_PATIENCE = 300.0
"""Seconds to wait for the connection to all ranks before the run ends with an error."""

_NONCE_BYTES = 32
_RANK_BYTES = 4
_RETRY_SECONDS = 0.02
_HANDSHAKE_SECONDS = 10.0
_NOTICE_SECONDS = 10.0
_MAX_CHUNK = 1 << 20


def new_session() -> str:
    """A random name for a group of processes; only those that have it can join."""
    return secrets.token_hex(16)


class SocketCollective(Collective):
    """See Collective. Every two processes have one connection, of the family AF_UNIX."""

    def __init__(
        self,
        session: str,
        rank: int,
        size: int,
        dtype: npt.DTypeLike = np.float32,
        patience: float = PATIENCE,
        connect_patience: float = CONNECT_PATIENCE,
    ) -> None:
        """Connect to all other ranks of the session; returns when all are connected.

        Units: `patience` in seconds, the longest wait for another rank; for the connection to all
        of them, it is the smaller one of `patience` and `connect_patience`.

        Raises:
            TrainingError: a rank is missing, or two processes have the same rank.
        """
        self.rank, self.size, self.patience = rank, size, patience
        self.dtype = np.dtype(dtype)
        self._session = session
        self._connect_patience = min(connect_patience, patience)
        self._posted: deque[_Posted] = deque()
        self._peers: dict[int, socket.socket] = {}
        deadline = time.monotonic() + self._connect_patience
        notice = threading.Timer(_NOTICE_SECONDS, self._log_missing)
        notice.daemon = True
        notice.start()
        try:
            self._connect_all(deadline)
        except BaseException:
            self.close()
            raise
        finally:
            notice.cancel()

    def _connect_all(self, deadline: float) -> None:
        if self.size == 1:
            return
        with socket.socket(socket.AF_UNIX) as listener:
            address = _address(self._session, self.rank)
            try:
                listener.bind(address)
            except OSError as cause:
                raise TrainingError(
                    f"rank {self.rank}: {cause.strerror}; expected one process of each rank in a "
                    "session; give every process its own rank, and every run a new uid"
                ) from cause
            try:
                listener.listen(self.size)
                for peer in range(self.rank):
                    self._peers[peer] = self._connect(peer, deadline)
                while len(self._peers) < self.size - 1:
                    self._accept(listener, deadline)
            finally:
                if not address.startswith("\0"):
                    Path(address).unlink(missing_ok=True)

    def _connect(self, peer: int, deadline: float) -> socket.socket:
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(_address(self._session, peer))
                connection.settimeout(max(0.0, deadline - time.monotonic()))
                rank = self.rank.to_bytes(_RANK_BYTES, "big")
                nonce = _receive(connection, _NONCE_BYTES)
                connection.sendall(rank + _proof(self._session, nonce, rank))
                return connection
            except (FileNotFoundError, ConnectionError):
                connection.close()
            except TimeoutError:
                connection.close()
                raise self._absent({peer}) from None
            if time.monotonic() > deadline:
                raise self._absent({peer})
            time.sleep(_RETRY_SECONDS)

    def _accept(self, listener: socket.socket, deadline: float) -> None:
        """Accept one connection; one that cannot prove to be of the session is closed."""
        listener.settimeout(max(0.0, deadline - time.monotonic()))
        try:
            connection, _ = listener.accept()
        except (TimeoutError, BlockingIOError):
            raise self._absent(self._missing()) from None
        try:
            connection.settimeout(_HANDSHAKE_SECONDS)
            nonce = secrets.token_bytes(_NONCE_BYTES)
            connection.sendall(nonce)
            answer = _receive(connection, _RANK_BYTES + hashlib.sha256().digest_size)
        except OSError:
            connection.close()
            return
        rank, proof = answer[:_RANK_BYTES], answer[_RANK_BYTES:]
        peer = int.from_bytes(rank, "big")
        if not hmac.compare_digest(proof, _proof(self._session, nonce, rank)):
            connection.close()
            return
        self._peers[peer] = connection

    def _missing(self) -> set[int]:
        return set(range(self.size)) - {self.rank, *self._peers}

    def _log_missing(self) -> None:
        missing = ", ".join(map(str, sorted(self._missing())))
        log.warning(
            "rank %d: waiting for rank(s) %s to connect, for at most %g s",
            self.rank,
            missing,
            self._connect_patience,
        )

    def post(self, outgoing: Sequence[Message], sizes: Sequence[Sequence[int]]) -> Pending:
        """See Collective. What comes has the dtype of what is sent, else the collective's."""
        dtype = next((array.dtype for message in outgoing for array in message), self.dtype)
        self._posted.append(_Posted(self, outgoing, sizes, dtype))
        return self._posted[-1]

    def release(self) -> None:
        """See Collective. Arrays that came are this process's own."""

    def abort(self) -> None:
        """See Collective."""
        self.close()

    def close(self) -> None:
        """See Collective."""
        for connection in self._peers.values():
            connection.close()
        self._peers.clear()

    def run_until(self, posted: _Posted) -> None:
        """Send and receive, in the order of the posts, until one is complete.

        Raises:
            TrainingError, PeerFailedError: see Pending.finish.
        """
        while not posted.complete:
            self._run(self._posted[0])
            self._posted.popleft()

    def _run(self, posted: _Posted) -> None:
        deadline = time.monotonic() + self.patience
        with selectors.DefaultSelector() as selector:
            for peer in range(self.size):
                if peer != self.rank and posted.events(peer):
                    selector.register(self._socket(peer), posted.events(peer), peer)
            while selector.get_map():
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                if not ready and time.monotonic() > deadline:
                    raise self._late({key.data for key in selector.get_map().values()})
                for key, events in ready:
                    self._transfer(posted, key.data, events)
                    left = posted.events(key.data)
                    if not left:
                        selector.unregister(key.fileobj)
                    elif left != key.events:
                        selector.modify(key.fileobj, left, key.data)
        posted.complete = True

    def _transfer(self, posted: _Posted, peer: int, events: int) -> None:
        connection = self._socket(peer)
        try:
            if events & selectors.EVENT_WRITE:
                posted.sent(peer, connection.send(posted.outgoing[peer][0][:_MAX_CHUNK]))
            if events & selectors.EVENT_READ:
                count = connection.recv_into(posted.buffers[peer][0][:_MAX_CHUNK])
                if not count:
                    raise ConnectionResetError
                posted.received(peer, count)
        except BlockingIOError:
            return
        except ConnectionError as cause:
            self.close()
            raise PeerFailedError(
                f"rank {self.rank}: rank {peer} has ended; see its message"
            ) from cause

    def _socket(self, peer: int) -> socket.socket:
        if peer not in self._peers:
            raise PeerFailedError(f"rank {self.rank}: the connection to rank {peer} is closed")
        self._peers[peer].setblocking(False)
        return self._peers[peer]

    def _absent(self, ranks: set[int]) -> TrainingError:
        return TrainingError(
            f"rank {self.rank}: waited {self._connect_patience:g} s for rank(s) "
            f"{', '.join(map(str, sorted(ranks)))}; expected {self.size} processes with the same "
            "uid to connect within that time; see whether they have ended, or allow more time: set "
            "NCCL.connect_patience in pycaffe"
        )

    def _late(self, ranks: set[int]) -> TrainingError:
        return TrainingError(
            f"rank {self.rank}: waited {self.patience:g} s for rank(s) "
            f"{', '.join(map(str, sorted(ranks)))}; expected all {self.size} within that time; see "
            "their messages, the data they read and the devices they use"
        )


class _Posted:
    """See Pending. `outgoing` and `buffers` are the bytes left to send and to receive, by rank."""

    def __init__(
        self,
        collective: SocketCollective,
        outgoing: Sequence[Message],
        sizes: Sequence[Sequence[int]],
        dtype: np.dtype[np.generic],
    ) -> None:
        self._collective = collective
        self.complete = False
        others = [peer for peer in range(collective.size) if peer != collective.rank]
        self._incoming: list[Message] = [
            outgoing[peer] if peer == collective.rank else [np.empty(n, dtype) for n in sizes[peer]]
            for peer in range(collective.size)
        ]
        self.outgoing = {peer: _bytes(outgoing[peer]) for peer in others}
        self.buffers = {peer: _bytes(self._incoming[peer]) for peer in others}

    def events(self, peer: int) -> int:
        """What the connection to a rank is waited for; 0 when the exchange with it is complete."""
        events = selectors.EVENT_WRITE if self.outgoing[peer] else 0
        return events | (selectors.EVENT_READ if self.buffers[peer] else 0)

    def sent(self, peer: int, count: int) -> None:
        """Remove bytes that were sent."""
        _advance(self.outgoing[peer], count)

    def received(self, peer: int, count: int) -> None:
        """Remove bytes that were received."""
        _advance(self.buffers[peer], count)

    def finish(self) -> list[Message]:
        """See Pending.finish."""
        self._collective.run_until(self)
        return self._incoming


def _bytes(arrays: Sequence[HostArray]) -> deque[memoryview]:
    return deque(np.ascontiguousarray(a).data.cast("B") for a in arrays if a.size)


def _advance(buffers: deque[memoryview], count: int) -> None:
    rest = buffers.popleft()[count:]
    if rest:
        buffers.appendleft(rest)


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def _proof(session: str, nonce: bytes, rank: bytes) -> bytes:
    return hmac.digest(session.encode(), nonce + rank, "sha256")


def _address(session: str, rank: int) -> str:
    """The address of a rank; it does not disclose the session's name."""
    name = f"verydeep-{hashlib.sha256(f'{session}/{rank}'.encode()).hexdigest()[:32]}"
    # Linux has names without files, of which nothing is left when a process is killed.
    return f"\0{name}" if sys.platform == "linux" else os.path.join(tempfile.gettempdir(), name)  # noqa: PTH118
