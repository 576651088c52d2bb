"""Programs of compiled kernels give the same bits as kernels that are called one by one."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto, text
from runtime.backend.cpu import recording
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.native_library import why_not
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.synced_memory import SyncedMemory
from runtime.net import Net
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from tests.runtime.net.replayed import (
    DRAWN,
    INPUTS,
    LAYERS,
    LOSS,
    SOLVER,
    TRAINED,
    XAVIER,
    built,
    dense,
    feed,
    passes,
    replays,
    same,
    trained,
    weights,
)
from tests.runtime.small_nets import conv, input_layer, layer, net_param

pytestmark = pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")

# The first convolution is computed with transformed filters.
WIDE = (INPUTS + LAYERS).replace("num_output: 5", "num_output: 64").replace("dim: 3", "dim: 33")


def scored(net: Net, count: int, first: int = 0) -> list[Any]:
    """The scores of passes with different images."""
    scores = []
    for seed in range(first, first + count):
        feed(net, seed)
        net.forward()
        scores.append(net.blobs["fc3"].data.host().copy())
    return scores


@pytest.mark.parametrize(
    "settings",
    [
        'lr_policy: "step" gamma: 0.5 stepsize: 5',
        'lr_policy: "poly" power: 1',
        'lr_policy: "fixed" iter_size: 2',
        'lr_policy: "exp" gamma: 0.9 clip_gradients: 0.1 iter_size: 3',
        'lr_policy: "fixed" type: "AdaGrad"',
    ],
)
def test_training_is_the_same_bits(settings: str) -> None:
    replayed, plain = (trained("cpu", settings, replay=on) for on in (True, False))
    assert replays(replayed.net) >= 12
    assert same(weights(replayed), weights(plain))


def test_one_program_for_a_pass_without_labels() -> None:
    with built(INPUTS + LAYERS, proto.TEST, "cpu") as net:
        scored(net, 6)
        assert net.replayed[0] == frozenset(range(2, len(net.layers)))
        before = replays(net)
        scored(net, 1)
        assert replays(net) == before + 1


def test_dropout_draws_in_every_pass() -> None:
    results = []
    for on in (True, False):
        with built(TRAINED, device="cpu", replay=on) as net:
            results.append(passes(net, 8))
            index = net.layer_names.index("drop2")
            assert index not in net.replayed[0]
    assert same(*results)


@pytest.mark.parametrize("expose", [False, True])
def test_weights_that_change_between_passes(expose: bool) -> None:
    results = []
    for on in (True, False):
        with built(WIDE, proto.TEST, "cpu", replay=on) as net:
            scores = scored(net, 7)
            weight = net.params.learnable[0].data
            (weight.exposed_host() if expose else weight.mutable_host())[...] *= 2
            results.append(scores + scored(net, 7))
            assert (replays(net) > 4) is on
    assert same(*results)


def test_shapes_that_change_and_come_back() -> None:
    results = []
    for on in (True, False):
        with built(WIDE, proto.TEST, "cpu", replay=on) as net:
            scores = []
            for images in (4, 4, 4, 4, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 2):
                net.blobs["data"].reshape((images, *net.blobs["data"].shape[1:]))
                net.blobs["label"].reshape((images,))
                scores += scored(net, 1)
            results.append(scores)
    assert same(*results)


def test_layers_that_compute_in_numpy_are_outside() -> None:
    head, tail = LAYERS.replace('bottom: "norm1"', 'bottom: "mvn"').split('layer { name: "pool1"')
    text = INPUTS + head + layer("MVN", "mvn", "norm1") + 'layer { name: "pool1"' + tail + LOSS
    results = []
    for on in (True, False):
        with built(text, device="cpu", replay=on) as net:
            results.append(passes(net, 7))
            if on:
                assert net.layer_names.index("mvn") not in net.replayed[0] | net.replayed[1]
                assert replays(net) > 0
    assert same(*results)


def test_parts_of_blobs_are_copied_by_programs() -> None:
    text = (
        INPUTS
        + layer("Slice", "slice", "data", "slice_param { slice_point: 1 }", top="a b").replace(
            'top: "a b"', 'top: "a" top: "b"'
        )
        + layer("Concat", "fc3", "b a")
        + 'layer { name: "silence" type: "Silence" bottom: "label" }'
    )
    with built(text, proto.TEST, "cpu") as net:
        for seed in range(8):
            feed(net, seed)
            net.forward()
            data = net.blobs["data"].data.host()
            expected = np.concatenate([data[:, 1:], data[:, :1]], axis=1)
            np.testing.assert_array_equal(net.blobs["fc3"].data.host(), expected)
        assert replays(net) > 0


@pytest.mark.parametrize("turn_us", [10**9, 0], ids=["at once", "in turns"])
@pytest.mark.parametrize(("threads", "callers"), [(2, 2), (2, 5), (3, 4), (70, 3)])
def test_nets_in_threads_share_a_backend_and_replay(
    monkeypatch: pytest.MonkeyPatch, turn_us: int, threads: int, callers: int
) -> None:
    monkeypatch.setattr(recording, "_TURN_US", turn_us)
    backend = CpuBackend(threads=threads)

    def scores(seed: int) -> list[Any]:
        context = RunContext(seed=seed, rng=CaffeRandom(seed))
        with Net(net_param(WIDE), proto.TEST, backend, context) as net:
            return scored(net, 40, seed)

    expected = [scores(seed) for seed in range(callers)]
    with ThreadPoolExecutor(callers) as pool:
        results = list(pool.map(scores, range(callers)))
    assert all(same(one, other) for one, other in zip(results, expected, strict=True))
    assert backend.recorder is not None and backend.recorder.replays > 30 * callers


def test_programs_in_turns_are_in_the_order_of_their_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No thread that calls again and again keeps another one from its turn."""
    monkeypatch.setattr(recording, "_TURN_US", 0)
    backend = CpuBackend(threads=2)
    counts = [0, 0]
    stop = threading.Event()

    def work(seed: int) -> None:
        context = RunContext(seed=seed, rng=CaffeRandom(seed))
        with Net(net_param(WIDE), proto.TEST, backend, context) as net:
            while not stop.is_set():
                net.forward()
                counts[seed] += 1
                if min(counts) >= 50:
                    stop.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert min(counts) >= 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_that_are_forked_during_turns_have_turns_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recording, "_TURN_US", 0)
    backend = CpuBackend(threads=2)

    def wide(seed: int) -> Net:
        context = RunContext(seed=seed, rng=CaffeRandom(seed))
        return Net(net_param(WIDE), proto.TEST, backend, context)

    stop = threading.Event()
    with wide(0) as net, wide(1) as other, ThreadPoolExecutor(1) as pool:
        scored(net, 6)
        expected = [array.tobytes() for array in scored(net, 5, 20)]
        scored(other, 6)

        def work() -> None:
            while not stop.is_set():
                other.forward()

        future = pool.submit(work)
        statuses = []
        for _ in range(12):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                result = [array.tobytes() for array in scored(net, 5, 20)]
                os._exit(0 if result == expected else 1)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        future.result()
    assert statuses == [0] * 12


def test_a_signal_is_handled_within_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_LIMIT_US", 0)
    with built(WIDE, proto.TEST, "cpu") as net:
        scored(net, 6)
        handled: list[int] = []
        library: Any = net.backend.recorder._library  # type: ignore[union-attr]
        run, seen = library.run_program, []

        def interrupted(*arguments: int) -> int:
            if not seen:
                signal.raise_signal(signal.SIGUSR1)
            done = int(run(*arguments))
            seen.append((done, len(handled)))
            return done

        monkeypatch.setattr(library, "run_program", interrupted)
        before = signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
        try:
            expected = scored(net, 1)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert len(seen) > 3 and seen[0][0] == 1 and handled == [1]
        with built(WIDE, proto.TEST, "cpu", replay=False) as plain:
            assert same(expected, scored(plain, 1))


def test_programs_use_the_workspace_of_their_own_call() -> None:
    """Workspaces move when another call needs a larger one."""
    backend = CpuBackend(threads=1)
    context = RunContext(seed=3, rng=CaffeRandom(3))
    with Net(net_param(WIDE), proto.TEST, backend, context) as net:
        expected = scored(net, 6)
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal((700, 700), np.float32) for _ in range(2))
        backend.products.gemm(False, False, 1.0, a, b, 0.0, np.empty((700, 700), np.float32))
        library: Any = backend.recorder._library  # type: ignore[union-attr]
        with library.workspace(64 << 20):
            assert same(scored(net, 6), expected)
        assert same(scored(net, 6), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_children_replay_after_a_fork() -> None:
    with built(WIDE, proto.TEST, "cpu") as net:
        scored(net, 6)
        expected = [array.tobytes() for array in scored(net, 5, 20)]
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                before = replays(net)
                same_bytes = [array.tobytes() for array in scored(net, 5, 20)] == expected
                os._exit(0 if same_bytes and replays(net) == before + 5 else 1)
            children.append(child)
        assert [array.tobytes() for array in scored(net, 5, 20)] == expected
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


def wide_solver(settings: str, on: bool) -> Solver:
    """A solver whose first convolution is computed with transformed filters."""
    param = text.parse(SOLVER + settings, proto.SolverParameter)
    param.momentum = 0.9
    layers = DRAWN + LAYERS.replace("num_output: 5", "num_output: 64") + LOSS
    param.net_param.CopyFrom(net_param(layers.replace("dim: 3", "dim: 33")))
    return Solver(param, CpuBackend(replay=on), SolverOptions())


@pytest.mark.parametrize("passes_per_update", [2, 3, 4])
def test_filters_that_several_passes_share_are_those_of_the_present_weights(
    passes_per_update: int,
) -> None:
    results = []
    for on in (True, False):
        solver = wide_solver(f'lr_policy: "fixed" iter_size: {passes_per_update}', on)
        solver.step(12)
        results.append(weights(solver))
        assert (replays(solver.net) > 0) is on
    assert same(*results)


def test_weights_that_were_exchanged_unseen_and_come_back() -> None:
    results = []
    for on in (True, False):
        with built(WIDE, proto.TEST, "cpu", replay=on) as net:
            weight = net.params.learnable[0].data
            own, other = SyncedMemory(net.backend), SyncedMemory(net.backend)
            for memory in (own, other):
                memory.reshape(weight.shape)
            own.share(weight)
            other.mutable_host()[...] = np.random.default_rng(1).standard_normal(weight.shape)
            scores = scored(net, 7)
            weight.share(other)
            for _ in range(3):  # parts of a net are never replayed
                net.forward(1)
            weight.share(own)
            results.append(scores + scored(net, 7))
            assert (replays(net) > 4) is on
    assert same(*results)


def test_backward_after_a_replay_has_the_replayed_shapes() -> None:
    # Both sizes give tops of the same shape.
    layers = (
        input_layer(2, 3, 8, 8)
        + conv("conv1", "data", 8, 3, f"pad: 1 stride: 2 {XAVIER}")
        + layer("LRN", "norm1", "conv1")
        + layer("Pooling", "pool1", "norm1", "pooling_param { kernel_size: 3 stride: 2 }")
        + dense("fc3", "pool1", 3)
    )
    results = []
    for on in (True, False):
        with built("force_backward: true\n" + layers, device="cpu", replay=on) as net:
            for size in (8,) * 6 + (7,) * 6:
                net.blobs["data"].reshape((2, 3, size, size))
                scored(net, 1)
            gradients = []
            for size in (8, 7, 8):
                net.blobs["data"].reshape((2, 3, size, size))
                gradients += scored(net, 1, size)
                net.blobs["fc3"].diff.mutable_host()[...] = 1
                net.clear_param_diffs()
                net.backward(every_layer=True)
                gradients += [blob.diff.host().copy() for blob in net.params.learnable]
                gradients.append(net.blobs["data"].diff.host().copy())
            results.append(gradients)
            assert (replays(net) > 4) is on
    assert same(*results)


def test_an_update_that_is_interrupted_changes_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solver = wide_solver('lr_policy: "fixed"', True)
    solver.step(12)
    for _ in range(3):  # keeps transformed filters
        solver.net.forward(1, 1)
    recorder: Any = solver.net.backend.recorder
    replay = recorder.replay

    def interrupted(graph: Any) -> None:
        replay(graph)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "replay", interrupted)
        with pytest.raises(KeyboardInterrupt):
            solver.engine.apply_update(solver.param, 0.05, 12)
    with Net(solver.net.param, proto.TRAIN, CpuBackend(replay=False), RunContext()) as fresh:
        for blob, other in zip(fresh.params.learnable, solver.net.params.learnable, strict=True):
            blob.data.mutable_host()[...] = other.data.host()
        for net in (fresh, solver.net):
            net.blobs["data"].data.mutable_host()[...] = 1
            net.forward(1, 1)
        assert same(*[[net.blobs["conv1"].data.host()] for net in (fresh, solver.net)])
