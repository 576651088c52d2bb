"""Replay: steps that repeat are recorded, and then replayed by the backend as one graph.

A step repeats if it made the same device calls twice, on the same memories in the same state.
Consecutive steps that repeat become one graph, a segment. A segment is replayed while:

- its memories have the storages and the shapes that were recorded;
- the same storages read as zeros without being written (the first gradient of an iteration);
- values that were read on the host, and weights with cached transformed filters, are the same;
- the caller's `key` is the same.

Otherwise, and for steps that are not recordable, the work is launched one by one. So no graph
contains a step that computes, waits or reads new values on the host, allocates, copies between host
and device, or draws random numbers that depend on more than the pass number. A step that was
recorded `_MAX_RECORDINGS` times without `_MIN_REPLAYS` replays of a graph is not recorded again. If
the driver cannot create graphs, one warning is logged and recording stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from prototxt_gen.errors import DeviceError
from runtime.backend.recording import Access, Graph, Recorder, Tape
from runtime.core.synced_memory import SyncedMemory
from runtime.net.memory_trace import Fit, MemoryTrace
from runtime.net.schedule import Direction, Step

log = logging.getLogger("verydeep.replay")

_MIN_CALLS = 3
"""A graph of fewer calls is not faster than the calls."""
_MAX_WAITS = 2
"""Passes for which a step that repeats waits for adjacent steps to repeat as well."""
_MAX_RECORDINGS = 16
_MIN_REPLAYS = 8
_VARIANTS = 4
"""Recordings of a step that are kept: the passes of one iteration may alternate."""


@dataclass(eq=False)
class _Recording:
    """One execution of a step."""

    tape: Tape
    trace: MemoryTrace
    key: Hashable
    waits: int = 0
    """Passes in which it has repeated without becoming part of a graph."""

    def repeats(self, earlier: _Recording) -> bool:
        return (
            self.key == earlier.key
            and self.tape == earlier.tape
            and self.trace.repeats(earlier.trace)
        )


Repeats = dict[int, tuple[_Recording, _Recording]]
"""By step: its recording in this pass and the earlier one that this repeats."""


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
    """The steps of one kind of pass, numbered from 0 in the order in which they run."""

    recorder: Recorder
    _segments: list[_Segment] = field(default_factory=list)
    _earlier: dict[int, list[_Recording]] = field(default_factory=dict)
    _current: dict[int, _Recording] = field(default_factory=dict)
    _recordings: dict[int, int] = field(default_factory=dict)
    """By step: how often it was recorded since a graph with it was replayed often enough."""
    _key: Hashable = None
    _generation: int = 0
    _disabled: bool = False
    """The driver cannot make graphs."""

    def begin(
        self, key: Hashable, pass_number: int | None = None, rates: Sequence[float] = ()
    ) -> None:
        """Start a pass; its work depends on `key`. See Recorder.begin for the other arguments."""
        self._current.clear()
        self._key = key
        if self.recorder.generation != self._generation:
            self.forget()
            self._generation = self.recorder.generation
        if pass_number is not None or rates:
            self._key = (key, self.recorder.begin(pass_number or 0, rates))

    def run(self, steps: Sequence[Step]) -> float:
        """Run a pass after `begin`, and end it; returns the weighted sum of the losses.

        Raises:
            DataError, ShapeError, DeviceError: see Net.forward.
        """
        loss, position = 0.0, 0
        while position < len(steps):
            step, count = steps[position], self.replayed(position)
            for replayed in steps[position : position + count]:
                replayed.follow_replay()
            if not count and step.recordable:
                self.do(position, step.run)
            elif not count:
                loss += step.run()
            position += count or 1
        self.end()
        return loss

    def replayed(self, step: int) -> int:
        """Replay the segment that starts with this step, if it fits; returns its length."""
        for segment in [segment for segment in self._segments if segment.first == step]:
            fit = Fit.LATER if segment.key != self._key else segment.trace.fits()
            if fit is Fit.NOW:
                segment.trace.ready()
                try:
                    self.recorder.replay(segment.graph)
                except BaseException:
                    segment.trace.interrupted()
                    raise
                segment.trace.replayed()
                segment.replays += 1
                if segment.replays == _MIN_REPLAYS:
                    self._recordings |= dict.fromkeys(range(segment.first, segment.stop), 0)
                return segment.stop - segment.first
            if fit is Fit.NEVER:
                self._segments.remove(segment)
        return 0

    def do(self, step: int, work: Callable[[], object]) -> None:
        """Execute a recordable step, launch by launch, and record it."""
        recordings = self._recordings[step] = self._recordings.get(step, 0) + 1
        if recordings > _MAX_RECORDINGS or self._disabled:
            self._earlier.pop(step, None)
            work()
            return
        trace, watch = MemoryTrace(), self.recorder.watch

        def note(memory: SyncedMemory, access: Access) -> None:
            trace.note(memory, access, self.recorder)

        watch.on_access = note
        try:
            tape = self.recorder.record(work)
        finally:
            watch.on_access = None
        self._current[step] = _Recording(tape, trace, self._key)

    def end(self) -> None:
        """Make graphs of the steps that repeated in this pass."""
        repeats: Repeats = {}
        for step, recording in self._current.items():
            earlier = self._match(step, recording)
            if earlier is not None:
                repeats[step] = recording, earlier
        for steps in _consecutive(repeats):
            if not self._disabled and self._is_final(steps, repeats):
                self._make_segment(steps, repeats)
        self._current.clear()

    @property
    def is_stale(self) -> bool:
        """Whether a recording refers to memory that the net no longer uses."""
        traces = [segment.trace for segment in self._segments]
        traces += [recording.trace for kept in self._earlier.values() for recording in kept]
        return not all(trace.holds() for trace in traces)

    def forget(self) -> None:
        """Release all graphs and recordings, and their memory."""
        self._segments.clear()
        self._earlier.clear()

    @property
    def steps(self) -> frozenset[int]:
        """The steps that are in a graph."""
        return frozenset(
            step for segment in self._segments for step in range(segment.first, segment.stop)
        )

    def _match(self, step: int, recording: _Recording) -> _Recording | None:
        """The earlier recording that this one repeats; without one, this one is kept."""
        if not (recording.tape.pure and recording.trace.pure):
            return None
        kept = self._earlier.setdefault(step, [])
        for earlier in kept:
            if recording.repeats(earlier):
                return earlier
        self._earlier[step] = [*kept[-_VARIANTS + 1 :], recording]
        return None

    def _is_final(self, steps: range, repeats: Repeats) -> bool:
        """Whether to make a graph of these steps now.

        It waits for adjacent steps to repeat as well, since one long graph is faster than two.
        """
        neighbours = {steps.start - 1, steps.stop} & self._current.keys()
        recordings = [repeats[step][1] for step in steps]
        if not neighbours or all(recording.waits == _MAX_WAITS for recording in recordings):
            return True
        for recording in recordings:
            recording.waits = min(recording.waits + 1, _MAX_WAITS)
        return False

    def _make_segment(self, steps: range, repeats: Repeats) -> None:
        """Make a graph of consecutive steps, if that is faster and their memories allow it."""
        pairs = [repeats[step] for step in steps]
        if sum(recording.tape.calls for recording, _ in pairs) < _MIN_CALLS:
            return
        trace = MemoryTrace.joined(
            recording.trace.freed(earlier.trace) for recording, earlier in pairs
        )
        if not trace.pure:
            return
        try:
            graph = self.recorder.capture([recording.tape for recording, _ in pairs])
        except DeviceError as error:
            log.warning("%s; from now on, ops are launched one by one", error)
            self._disabled = True
            return
        variants = [segment for segment in self._segments if segment.first == steps.start]
        if len(variants) >= _VARIANTS:
            self._segments.remove(variants[0])
        self._segments.append(_Segment(steps.start, steps.stop, self._key, trace, graph))
        for step in steps:
            self._earlier[step].remove(repeats[step][1])


class NetReplay:
    """The passes of one net over all its layers, without hooks. See Replay.

    Data is read before the pass, and steps with a loss are not recordable.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replays = {direction: Replay(recorder) for direction in Direction}
        self._steps: dict[Direction, Sequence[Step]] = dict.fromkeys(Direction, ())

    def forward(self, steps: Sequence[Step], seed: int, pass_number: int) -> float:
        """Run the steps; returns the weighted sum of the losses."""
        if any(replay.is_stale for replay in self._replays.values()):
            # Before layers allocate, since there may be too little memory for both.
            for replay in self._replays.values():
                replay.forget()
        replay = self._replay_of(Direction.FORWARD, steps)
        replay.begin(seed, pass_number)
        return replay.run(steps)

    def backward(self, steps: Sequence[Step]) -> float:
        """Run the steps; returns 0."""
        replay = self._replay_of(Direction.BACKWARD, steps)
        replay.begin(None)
        return replay.run(steps)

    @property
    def layers(self) -> tuple[frozenset[int], frozenset[int]]:
        """The layers whose forward and whose backward steps are in a graph."""
        forward, backward = (
            frozenset(
                layer
                for position in self._replays[direction].steps
                for layer in self._steps[direction][position].layers
            )
            for direction in Direction
        )
        return forward, backward

    def _replay_of(self, direction: Direction, steps: Sequence[Step]) -> Replay:
        if steps is not self._steps[direction]:
            # In another schedule the steps have other numbers.
            self._replays[direction] = Replay(self._recorder)
            self._steps[direction] = steps
        return self._replays[direction]


def _consecutive(steps: Iterable[int]) -> Iterator[range]:
    """Runs of consecutive numbers."""
    run = range(0)
    for step in sorted(steps):
        if run and step != run.stop:
            yield run
            run = range(0)
        run = range(run.start if run else step, step + 1)
    if run:
        yield run
