"""Work that is done over and over: launched one by one until it repeats, then all at once.

Steps are recorded while they are done. A step repeats where it asked the device for the very same
twice, on the same memories in the same state; a run of such steps becomes one graph. A graph is
replayed as long as everything holds that its steps leaned on:

- the memories look at the storages they looked at, in the shapes they had;
- what read as zeros still does, and nothing else does (the first gradient of an iteration);
- what was read on the host has not changed, nor the weights of which something derived was kept;
- the caller's `key` is the same.

Where it does not, and at every step that is not fit, the work is done launch by launch, as it is
without a recorder. So a layer that computes on the host, reads what is new on the host, waits,
allocates, moves bytes between host and device, or draws otherwise than by the clock is never part
of a graph. A step that was recorded `_TRIES` times, and has not been replayed `_PAID` times by a
graph since, is recorded no more: it changes too often. Where the driver makes no graphs, that is
said once and nothing is recorded any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prototxt_gen.errors import DeviceError
from runtime.backend.recording import Access, Graph, Recorder, Tape
from runtime.core.synced_memory import SyncedMemory
from runtime.net.memory_trace import Fit, MemoryTrace

log = logging.getLogger("verydeep.replay")

# A graph of fewer calls gains nothing.
_WORTH = 3
# How long steps that repeat wait for those beside them.
_WAIT = 2
_TRIES = 16
_PAID = 8
# Kinds of a step that take turns, as the passes of one iteration do.
_KINDS = 4


@dataclass(eq=False)
class _Piece:
    """A step as it was done once."""

    tape: Tape
    trace: MemoryTrace
    key: Hashable
    waited: int = 0
    """How often it has repeated without becoming part of a graph."""

    def repeats(self, earlier: _Piece) -> bool:
        return (
            self.key == earlier.key
            and self.tape == earlier.tape
            and self.trace.repeats(earlier.trace)
        )


Repeats = dict[int, tuple[_Piece, _Piece]]
"""By step, what was done in this pass and what it repeats."""


@dataclass(eq=False)
class _Segment:
    """Steps `first` to `stop`-1 as one graph."""

    first: int
    stop: int
    key: Hashable
    trace: MemoryTrace
    graph: Graph
    replays: int = 0


@dataclass
class Replay:
    """The steps of one kind of pass, numbered from 0 in the order in which they are done."""

    recorder: Recorder
    _segments: list[_Segment] = field(default_factory=list)
    _known: dict[int, list[_Piece]] = field(default_factory=dict)
    _pass: dict[int, _Piece] = field(default_factory=dict)
    _tries: dict[int, int] = field(default_factory=dict)
    _key: Hashable = None
    _era: int = 0
    _refused: bool = False
    """The driver makes no graphs."""

    def begin(
        self, key: Hashable, pass_number: int | None = None, rates: Sequence[float] = ()
    ) -> None:
        """Start a pass; `key` is what else its work depends on. See Recorder.begin."""
        self._pass.clear()
        self._key = key
        if self.recorder.era != self._era:
            self.forget()
            self._era = self.recorder.era
        if pass_number is not None or rates:
            self._key = (key, self.recorder.begin(pass_number or 0, rates))

    def replayed(self, step: int) -> int:
        """Replay what begins with this step, if anything holds; how many steps that were."""
        for segment in [each for each in self._segments if each.first == step]:
            fit = Fit.LATER if segment.key != self._key else segment.trace.fits()
            if fit is Fit.NOW:
                segment.trace.ready()
                self.recorder.replay(segment.graph)
                segment.trace.replayed()
                segment.replays += 1
                if segment.replays == _PAID:
                    self._tries |= dict.fromkeys(range(segment.first, segment.stop), 0)
                return segment.stop - segment.first
            if fit is Fit.NEVER:
                self._segments.remove(segment)
        return 0

    def do(self, step: int, work: Callable[[], object]) -> None:
        """Do a step that is fit to be repeated, launch by launch."""
        tries = self._tries[step] = self._tries.get(step, 0) + 1
        if tries > _TRIES or self._refused:
            self._known.pop(step, None)
            work()
            return
        trace, watch = MemoryTrace(), self.recorder.watch

        def told(memory: SyncedMemory, access: Access) -> None:
            trace.note(memory, access, self.recorder)

        watch.told = told
        try:
            tape = self.recorder.record(work)
        finally:
            watch.told = None
        self._pass[step] = _Piece(tape, trace, self._key)

    def end(self) -> None:
        """Make graphs of what has repeated in this pass."""
        again: Repeats = {}
        for step, piece in self._pass.items():
            earlier = self._earlier(step, piece)
            if earlier is not None:
                again[step] = piece, earlier
        for run in _runs(again):
            if not self._refused and self._is_whole(run, again):
                self._make(run, again)
        self._pass.clear()

    @property
    def is_stale(self) -> bool:
        """Whether something here holds memory that its net uses no more."""
        traces = [segment.trace for segment in self._segments]
        traces += [piece.trace for known in self._known.values() for piece in known]
        return not all(trace.holds() for trace in traces)

    def forget(self) -> None:
        """Let go of all graphs, and of the memory that they hold."""
        self._segments.clear()
        self._known.clear()

    @property
    def steps(self) -> frozenset[int]:
        """The steps that are in a graph."""
        return frozenset(i for each in self._segments for i in range(each.first, each.stop))

    def _earlier(self, step: int, piece: _Piece) -> _Piece | None:
        """The same work as it was done before; else this is remembered for next time."""
        if not (piece.tape.pure and piece.trace.pure):
            return None
        known = self._known.setdefault(step, [])
        for earlier in known:
            if piece.repeats(earlier):
                return earlier
        self._known[step] = [*known[-_KINDS + 1 :], piece]
        return None

    def _is_whole(self, run: range, again: Repeats) -> bool:
        """Whether a run is as long as it will be.

        It waits a while for the steps beside it to repeat too: one long graph is cheaper than two.
        """
        beside = {run.start - 1, run.stop} & self._pass.keys()
        pieces = [again[step][1] for step in run]
        if not beside or all(piece.waited == _WAIT for piece in pieces):
            return True
        for piece in pieces:
            piece.waited = min(piece.waited + 1, _WAIT)
        return False

    def _make(self, run: range, again: Repeats) -> None:
        """Make a graph of consecutive steps that have repeated, where it is worth it."""
        pieces = [again[step] for step in run]
        if sum(piece.tape.calls for piece, _ in pieces) < _WORTH:
            return
        trace = MemoryTrace.joined(piece.trace.freed(earlier.trace) for piece, earlier in pieces)
        if not trace.pure:
            return
        try:
            graph = self.recorder.capture([piece.tape for piece, _ in pieces])
        except DeviceError as error:
            log.warning("%s. From here on this work is launched one by one", error)
            self._refused = True
            return
        kinds = [each for each in self._segments if each.first == run.start]
        if len(kinds) >= _KINDS:
            self._segments.remove(kinds[0])
        self._segments.append(_Segment(run.start, run.stop, self._key, trace, graph))
        for step in run:
            self._known[step].remove(again[step][1])


def _runs(steps: Iterable[int]) -> Iterator[range]:
    """The runs of consecutive numbers."""
    run = range(0)
    for step in sorted(steps):
        if run and step != run.stop:
            yield run
            run = range(0)
        run = range(run.start if run else step, step + 1)
    if run:
        yield run
