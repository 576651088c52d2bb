"""The state that a replay needs is checked before it; if it differs, all is launched."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from prototxt_gen.errors import DataError
from runtime.net import Net
from runtime.solvers.debug_info import DebugInfo
from tests.runtime.net.replayed import (
    INPUTS,
    LAYERS,
    LOSS,
    TRAINED,
    built,
    feed,
    passes,
    replays,
    same,
)
from tests.runtime.small_nets import layer

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="the emulator needs g++")

# Of the layers of TRAINED: data and label come first, the loss last.
ALL = frozenset(range(2, 10))


def settled(net: Net, count: int = 6) -> None:
    """Let graphs be made, and see that they are."""
    passes(net, count)
    assert net.replayed == (ALL, ALL | {10})


def test_hooks_see_every_layer() -> None:
    with built(TRAINED) as net:
        settled(net)
        seen: list[int] = []
        net.after_forward.append(seen.append)
        before = replays(net)
        passes(net, 1)
        assert seen == list(range(len(net.layers)))
        # A hook of the forward pass also reads what the backward pass uses.
        assert replays(net) == before
        net.after_forward.clear()
        seen.clear()
        net.before_backward.append(seen.append)
        passes(net, 1)
        assert (seen, replays(net)) == (list(range(len(net.layers)))[::-1], before + 1)
        net.before_backward.clear()
        passes(net, 1)
        assert replays(net) == before + 3


def test_debug_info_observes_every_layer(caplog: pytest.LogCaptureFixture) -> None:
    with built(TRAINED) as net:
        settled(net)
        debug, before = DebugInfo(net, True), replays(net)
        with caplog.at_level("INFO"):
            passes(net, 1)
        assert replays(net) == before
        assert "[Backward] Layer conv1, param blob 0 diff" in caplog.text
        debug.enabled = False
        passes(net, 1)
        assert replays(net) == before + 2


def test_a_part_of_the_layers_is_launched() -> None:
    with built(TRAINED) as net:
        settled(net)
        before = replays(net)
        net.forward(start=2)
        net.forward(end=5)
        net.forward()
        net.backward(start=9)
        net.backward(end=3)
        assert replays(net) == before + 1


def test_who_takes_factors_gets_them() -> None:
    with built(TRAINED) as net:
        settled(net)
        before, taken = replays(net), []
        dense: Any = net.layer_by_name("fc3")
        dense.keep_factors = lambda left, right: taken.append((left.shape, right.shape))
        passes(net, 2)
        assert (taken, replays(net)) == ([((4, 3), (4, 8))] * 2, before + 2)


def test_host_layers_are_never_in_a_graph() -> None:
    host = layer("Interp", "interp", "norm1", "interp_param { zoom_factor: 1 }")
    within = LAYERS.replace("alpha: 0.1", "alpha: 0.1 norm_region: WITHIN_CHANNEL")
    for layers, outside in (
        (LAYERS.replace('bottom: "norm1"', 'bottom: "interp"'), "interp"),
        (within, "norm1"),
    ):
        head, tail = layers.split('layer { name: "pool1"')
        text = INPUTS + head + (host if outside == "interp" else "") + 'layer { name: "pool1"'
        results = []
        for on in (True, False):
            with built(text + tail + LOSS, replay=on) as net:
                results.append(passes(net, 7))
                index = net.layer_names.index(outside)
                for found in net.replayed if on else ():
                    assert index not in found
                    assert {index - 1, index + 1} & found
        assert same(*results)


@pytest.mark.parametrize("weight", [1, 0])
def test_wrong_labels_are_found_in_every_pass(weight: int) -> None:
    """Also if the weight of the loss is 0, so that it is not read."""
    with built(INPUTS + LAYERS + LOSS.replace("}\n", f"loss_weight: {weight} }}\n")) as net:
        passes(net, 6)
        assert net.replayed[0] == ALL
        net.blobs["label"].data.mutable_host()[...] = [0, 1, 2, 3]
        with pytest.raises(DataError, match="label"):
            net.forward()


def test_changed_weights_are_seen() -> None:
    """Filters that a backend kept are of the old weights."""
    wide = "".join((INPUTS, LAYERS.replace("num_output: 5", "num_output: 64"), LOSS)).replace(
        "dim: 3 dim: 8", "dim: 33 dim: 8"
    )
    outcomes = []
    for on in (True, False):
        with built(wide, proto.TEST, replay=on) as net:
            found: list[Any] = []
            for step in range(14):
                feed(net, step)
                if step == 7:
                    net.params.learnable[0].data.mutable_host()[...] *= 2
                net.forward()
                found.append(net.blobs["fc3"].data.host().copy())
            outcomes.append(found)
            assert (replays(net) > 4) is on
    assert same(*outcomes)


def test_new_shapes_are_launched_and_then_replayed_again() -> None:
    results = []
    for on in (True, False):
        with built(INPUTS + LAYERS, proto.TEST, replay=on) as net:
            found: list[Any] = []
            for images in (4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 6, 6, 6, 6, 6, 6):
                net.blobs["data"].reshape((images, 3, 8, 8))
                net.blobs["label"].reshape((images,))
                feed(net, images)
                net.forward()
                found.append(net.blobs["fc3"].data.host().copy())
            results.append(found)
    assert same(*results)


def test_arrays_that_a_user_keeps_are_read_in_every_pass() -> None:
    results = []
    for on in (True, False):
        with built(INPUTS + LAYERS, proto.TEST, replay=on) as net:
            kept = net.blobs["data"].data.exposed_host()
            bias = net.params.learnable[1].data.exposed_host()
            found: list[Any] = []
            for step in range(10):
                kept = net.blobs["data"].data.exposed_host()
                kept[...] = np.random.default_rng(step).standard_normal(kept.shape)
                bias = net.params.learnable[1].data.exposed_host()
                bias += 0.5
                net.forward()
                found.append(net.blobs["fc3"].data.exposed_host().copy())
            results.append(found)
            assert (replays(net) > 0) is on
    assert same(*results)


def test_memory_that_is_bound_again_is_detected() -> None:
    results = []
    for on in (True, False):
        with built(TRAINED, replay=on) as net:
            found = passes(net, 6)
            other = net.blobs["pool1"].data
            fresh = type(other)(net.backend)
            fresh.reshape(other.shape)
            other.share(fresh)
            results.append([*found, *passes(net, 3), fresh.host().copy()])
    assert same(*results)
    assert results[0][-1].any()


def shaped(sizes: tuple[int, ...], on: bool) -> tuple[list[Any], list[int], int]:
    """Scores of batches of these sizes, how many steps each pass recorded, and the replays."""
    with built(INPUTS + LAYERS, proto.TEST, replay=on) as net:
        backend: Any = net.backend
        scores: list[Any] = []
        recorded: list[int] = []
        if on:
            record = backend.recorder.record

            def counted(work: Any) -> Any:
                recorded.append(len(scores))
                return record(work)

            backend.recorder.record = counted
        for images in sizes:
            net.blobs["data"].reshape((images, 3, 8, 8))
            net.blobs["label"].reshape((images,))
            feed(net, images)
            net.forward()
            scores.append(net.blobs["fc3"].data.host().copy())
        return scores, [recorded.count(i) for i in range(len(sizes))], replays(net)


def test_a_graph_serves_again_when_its_shapes_come_back() -> None:
    """After a pass that gives all layers their shapes."""
    sizes = (5,) * 7 + (2,) * 7 + (5,) * 3 + (2,) * 3
    found, recorded, count = shaped(sizes, True)
    # Layers 2 to 9 without conv1's ReLU, which is part of its step.
    assert (recorded[14:], count) == ([7, 0, 0] * 2, 12)
    assert same(found, shaped(sizes, False)[0])


def test_nothing_is_recorded_for_ever() -> None:
    sizes = (6, 1, 2, 3, 4, 5) * 5
    found, recorded, _ = shaped(sizes, True)
    assert all(recorded[:16])
    assert not any(recorded[16:])
    assert same(found, shaped(sizes, False)[0])


def test_graphs_go_when_the_workspace_grows() -> None:
    """They would keep the old one in addition to it."""
    results = []
    for on in (True, False):
        with built(TRAINED, replay=on) as net:
            backend: Any = net.backend
            found = passes(net, 6)
            size = backend.device_memory.workspace_bytes
            backend.device_memory.workspace(3 * size)
            before, held = replays(net), backend.device_memory.held_bytes
            found += passes(net, 1)
            assert replays(net) == before
            if on:
                backend.device_memory.empty(size, np.dtype(np.uint8))
                assert backend.device_memory.held_bytes == held
            results.append(found + passes(net, 5))
            assert (replays(net) > before) is on
            assert backend.device_memory.held_bytes == held
    assert same(*results)


def test_no_memory_is_kept_that_the_net_does_not_need() -> None:
    """Neither by graphs, nor by what was recorded and did not become one."""
    peaks, results = [], []
    for on in (True, False):
        with built(TRAINED, replay=on) as net:
            backend: Any = net.backend
            found = []
            for images, count in ((4, 6), (40, 6), (80, 2), (160, 6)):
                net.blobs["data"].reshape((images, 3, 8, 8))
                net.blobs["label"].reshape((images,))
                found += passes(net, count)
            results.append(found)
            peaks.append(backend.device_memory.peak_bytes)
            assert (replays(net) > 12) is on
    assert same(*results)
    # The clock of the passes is all that is more.
    assert peaks[0] <= peaks[1] + 512
