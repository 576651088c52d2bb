"""The memories that a step used and their states, to decide whether the step can be replayed."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.backend.recording import Access, Recorder
from runtime.core.synced_memory import Head, Storage, SyncedMemory


class Fit(enum.Enum):
    """Whether the recorded work can be replayed."""

    NOW = 0
    LATER = 1
    """Not now: a shape, or whether a storage reads as zeros, differs."""
    NEVER = 2
    """Never: a memory has another storage, or a value that was read has changed."""


@dataclass
class MemoryTrace:
    """Memories, their storages, and the part of their state that the work depends on.

    The keys of `bindings`, `versions` and `on_host` are ids of memories, those of `storages` and
    `written` ids of storages.
    """

    bindings: dict[int, tuple[SyncedMemory, Storage, tuple[int, ...]]] = field(default_factory=dict)
    storages: dict[int, tuple[Storage, bool]] = field(default_factory=dict)
    """Each storage with whether it read as zeros before the work."""
    written: set[int] = field(default_factory=set)
    versions: dict[int, int | None] = field(default_factory=dict)
    """The versions of memories whose values the work may depend on: they were read on the host, or
    a backend caches values derived from them. None means that any version fits."""
    on_host: set[int] = field(default_factory=set)
    """Memories read on the host."""
    pure: bool = True
    """No memory was written on the host, read there without a version, or bound to another storage
    during the work."""

    def note(self, memory: SyncedMemory, access: Access, recorder: Recorder) -> None:
        """Record an access before it takes place.

        The values are first copied to the side that uses them, outside of the recording: a replay
        contains no copies, and `ready` makes them before it.
        """
        storage, key = memory.storage, id(memory)
        self.bindings.setdefault(key, (memory, storage, memory.shape))
        self.storages.setdefault(id(storage), (storage, storage.reads_zero))
        # A replay cannot bind a memory to another storage.
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
        """Whether both used the same memories in the same state."""
        return (
            self.bindings == earlier.bindings
            and self.storages == earlier.storages
            and self.written == earlier.written
            and self.on_host == earlier.on_host
            and self.versions.keys() == earlier.versions.keys()
            and all(self.versions[key] == earlier.versions[key] for key in self.on_host)
        )

    def freed(self, earlier: MemoryTrace) -> MemoryTrace:
        """A copy that accepts any version if the two differ, as this did not change the work."""
        versions = {
            key: version if version == earlier.versions[key] else None
            for key, version in self.versions.items()
        }
        return MemoryTrace(
            self.bindings, self.storages, self.written, versions, self.on_host, self.pure
        )

    @classmethod
    def joined(cls, traces: Iterable[MemoryTrace]) -> MemoryTrace:
        """Merge the traces of consecutive steps; of each state, the first use counts."""
        merged = cls()
        for trace in traces:
            shared = trace.bindings.keys() & merged.bindings.keys()
            merged.pure = merged.pure and all(
                trace.bindings[key] == merged.bindings[key] for key in shared
            )
            merged.bindings = trace.bindings | merged.bindings
            merged.storages = trace.storages | merged.storages
            merged.written |= trace.written
            merged.on_host |= trace.on_host
            # If one step depends on a version, so do all of them together.
            for key, version in trace.versions.items():
                if merged.versions.get(key) is None:
                    merged.versions[key] = version
        return merged

    def holds(self) -> bool:
        """Whether the memories still have the storages of the recording."""
        return all(memory.storage is storage for memory, storage, _ in self.bindings.values())

    def fits(self) -> Fit:
        """Whether the work can be replayed now."""
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
        """Copy values that are newer on the host to the device."""
        for storage, _ in self.storages.values():
            if storage.head is Head.AT_HOST:
                storage.device(write=False)

    def replayed(self) -> None:
        """Update the states of the storages after a replay."""
        for key, (storage, _) in self.storages.items():
            storage.replayed(key in self.written)

    def interrupted(self) -> None:
        """Note that a replay may have written some of what it writes."""
        for key, (storage, _) in self.storages.items():
            if key in self.written:
                storage.touch()
