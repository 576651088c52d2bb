"""Which memories a piece of work went through, and whether it would do the same again."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.backend.recording import Access, Recorder
from runtime.core.synced_memory import Head, Storage, SyncedMemory


class Fit(enum.Enum):
    """Whether a trace is what the work would do now."""

    NOW = 0
    LATER = 1
    """Not now: something has another shape, or reads as zeros and did not, or did and does not."""
    NEVER = 2
    """Not any more: a memory has another storage, or what was read has changed."""


@dataclass
class MemoryTrace:
    """Memories, the storages that they look at, and what of their state the work depends on.

    `versions` are of what was read on the host, so that the work may have decided by it, and of
    what a backend may have kept something derived from: None there is any version.
    """

    bindings: dict[int, tuple[SyncedMemory, Storage, tuple[int, ...]]] = field(default_factory=dict)
    storages: dict[int, tuple[Storage, bool]] = field(default_factory=dict)
    """Each with whether it read as zeros before the work."""
    written: set[int] = field(default_factory=set)
    versions: dict[int, int | None] = field(default_factory=dict)
    on_host: set[int] = field(default_factory=set)
    """Memories read on the host."""
    pure: bool = True
    """Nothing was written on the host, read there unwatched, or bound anew on the way."""

    def note(self, memory: SyncedMemory, access: Access, recorder: Recorder) -> None:
        """Enter an access that is about to happen.

        What lies on the other side is brought over before, for a replay can only work on the
        device: `ready` does the same.
        """
        storage, key = memory.storage, id(memory)
        self.bindings.setdefault(key, (memory, storage, memory.shape))
        self.storages.setdefault(id(storage), (storage, storage.reads_zero))
        # A memory that is bound anew within the work would have to be bound anew by a replay.
        self.pure = self.pure and self.bindings[key] == (memory, storage, memory.shape)
        if access is Access.HOST_WRITE:
            self.pure = False
        elif access is Access.HOST_READ:
            with recorder.paused():
                storage.host(write=False)
            self.on_host.add(key)
            self.versions[key] = storage.version
            self.pure = self.pure and storage.version is not None
        elif access is Access.VERSION:
            self.versions[key] = storage.version
        elif access is not Access.BINDING:
            if storage.head is Head.AT_HOST:
                with recorder.paused():
                    storage.device(write=False)
            if access is Access.DEVICE_WRITE:
                self.written.add(id(storage))

    def repeats(self, earlier: MemoryTrace) -> bool:
        """Whether both went through the same memories in the same state."""
        return (
            self.bindings == earlier.bindings
            and self.storages == earlier.storages
            and self.written == earlier.written
            and self.on_host == earlier.on_host
            and self.versions.keys() == earlier.versions.keys()
            and all(self.versions[key] == earlier.versions[key] for key in self.on_host)
        )

    def freed(self, earlier: MemoryTrace) -> MemoryTrace:
        """The same, free of the versions that made no difference between the two."""
        versions = {
            key: version if version == earlier.versions[key] else None
            for key, version in self.versions.items()
        }
        return MemoryTrace(
            self.bindings, self.storages, self.written, versions, self.on_host, self.pure
        )

    @classmethod
    def joined(cls, traces: Iterable[MemoryTrace]) -> MemoryTrace:
        """The trace of pieces of work one after another: of a state, the first to lean on it."""
        whole = cls()
        for trace in traces:
            shared = trace.bindings.keys() & whole.bindings.keys()
            whole.pure = whole.pure and all(
                trace.bindings[key] == whole.bindings[key] for key in shared
            )
            whole.bindings = trace.bindings | whole.bindings
            whole.storages = trace.storages | whole.storages
            whole.written |= trace.written
            whole.on_host |= trace.on_host
            # A version that one piece is bound to binds the whole.
            for key, version in trace.versions.items():
                if whole.versions.get(key) is None:
                    whole.versions[key] = version
        return whole

    def holds(self) -> bool:
        """Whether the memories still look at the storages that they looked at."""
        return all(memory.storage is storage for memory, storage, _ in self.bindings.values())

    def fits(self) -> Fit:
        """Whether the work would do the same now."""
        fit = Fit.NOW
        for memory, storage, shape in self.bindings.values():
            if memory.storage is not storage:
                return Fit.NEVER
            if memory.shape != shape:
                fit = Fit.LATER
        for key, version in self.versions.items():
            if version is not None and self.bindings[key][1].version != version:
                return Fit.NEVER
        for storage, zero in self.storages.values():
            if storage.reads_zero is not zero:
                return Fit.LATER
        return fit

    def ready(self) -> None:
        """Bring to the device what lies on the host."""
        for storage, _ in self.storages.values():
            if storage.head is Head.AT_HOST:
                storage.device(write=False)

    def replayed(self) -> None:
        """Note what a replay has done to the storages."""
        for key, (storage, _) in self.storages.items():
            storage.replayed(key in self.written)
