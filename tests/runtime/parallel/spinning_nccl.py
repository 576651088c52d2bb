"""NCCL whose groups are submitted without waiting, and then run until all ranks have submitted."""

from __future__ import annotations

import ctypes
import threading
import time
from collections import defaultdict
from typing import Any

Transfer = tuple[str, int, int, int]


class SpinningNccl:
    """The functions of NcclLibrary for the ranks of one process, which all use one object.

    `ends` counts the groups that each rank has submitted. The rank `slow` sleeps before it submits.
    """

    def __init__(self, size: int, slow: int) -> None:
        self.size, self.slow = size, slow
        self.ends = [0] * size
        self._joined = threading.Barrier(size, timeout=20.0)
        self._changing = threading.Lock()
        self._rank = threading.local()
        self._groups: dict[int, dict[int, list[Transfer]]] = defaultdict(dict)

    def runs(self) -> bool:
        """Whether a group of the calling thread's rank still waits for another rank."""
        rank = getattr(self._rank, "number", None)
        return rank is not None and self.ends[rank] > min(self.ends)

    def call(self, name: str, *args: Any) -> None:
        getattr(self, name)(*args)

    def ncclGetUniqueId(self, *_: Any) -> None:  # noqa: N802 -- NCCL's name
        pass

    def ncclCommInitRank(self, comm: Any, size: int, name: Any, rank: int) -> None:  # noqa: N802
        self._rank.number = rank
        self._joined.wait()

    def ncclGroupStart(self) -> None:  # noqa: N802
        self._rank.group = []

    def ncclSend(self, *place: Any) -> None:  # noqa: N802
        self._add("send", *place)

    def ncclRecv(self, *place: Any) -> None:  # noqa: N802
        self._add("receive", *place)

    def _add(self, kind: str, address: int, nbytes: int, dtype: int, peer: int, *rest: Any) -> None:
        self._rank.group.append((kind, address, nbytes, peer))

    def ncclGroupEnd(self) -> None:  # noqa: N802
        rank = self._rank.number
        if rank == self.slow:
            time.sleep(0.02)
        with self._changing:
            number = self.ends[rank]
            self._groups[number][rank] = self._rank.group
            self.ends[rank] += 1
            if len(self._groups[number]) == self.size:
                self._copy(self._groups.pop(number))

    def _copy(self, groups: dict[int, list[Transfer]]) -> None:
        for rank, transfers in groups.items():
            taken: dict[int, int] = defaultdict(int)
            for kind, address, nbytes, peer in transfers:
                if kind == "receive":
                    sent = [t for t in groups[peer] if t[0] == "send" and t[3] == rank]
                    source = sent[taken[peer]]
                    taken[peer] += 1
                    assert source[2] == nbytes
                    ctypes.memmove(address, source[1], nbytes)

    def ncclCommDestroy(self, comm: Any) -> None:  # noqa: N802
        pass

    def ncclCommAbort(self, comm: Any) -> None:  # noqa: N802
        pass
