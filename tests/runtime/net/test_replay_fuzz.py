"""Any change of a net between its passes: the bits are those of single launches."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

from runtime.backend.cpu.native_library import why_not
from runtime.net import Net
from tests.runtime.net.replayed import TRAINED, built, feed, replays, same
from tests.runtime.small_nets import layer

DEVICES = [
    pytest.param("emu", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")),
    pytest.param(
        "cpu", marks=pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")
    ),
]

# The scores have a second reader, so that there is a Split; another blob has one that is silent.
SILENCE = 'layer { name: "silence" type: "Silence" bottom: "pool1" }\n'
NET = TRAINED + layer("Softmax", "prob", "fc3") + SILENCE
Random = np.random.Generator


def run(net: Net, rng: Random, found: list[Any]) -> None:
    """A few passes, with an update or not, the gradients cleared or added to."""
    clears, updates = rng.random(2) < 0.8
    for _ in range(int(rng.integers(1, 7))):
        feed(net, int(rng.integers(100)))
        if clears:
            net.clear_param_diffs()
        found.append(net.forward())
        net.backward()
        found += [blob.diff.host().copy() for blob in net.params.learnable]
        if updates:
            for blob in net.params.learnable:
                net.backend.vectors.axpy(-0.01, blob.diff.dev(), blob.data.mutable_dev())
    names = sorted(net.blobs)
    found.append(net.blobs[names[int(rng.integers(len(names)))]].data.host().copy())


def reshape(net: Net, rng: Random, found: list[Any]) -> None:
    """Another batch size, smaller or larger than what memory there is."""
    images = int(rng.choice([2, 4, 5]))
    net.blobs["data"].reshape((images, 3, 8, 8))
    net.blobs["label"].reshape((images,))


def rewrite(net: Net, rng: Random, found: list[Any]) -> None:
    """Weights from elsewhere."""
    weights = net.params.learnable[int(rng.integers(len(net.params.learnable)))]
    weights.data.mutable_host()[...] = rng.standard_normal(weights.shape) / 4


def look(net: Net, rng: Random, found: list[Any]) -> None:
    """A hook observes a pass, and is removed."""
    hooks = (net.before_forward, net.after_forward, net.before_backward, net.after_backward)
    hook = hooks[int(rng.integers(4))]
    hook.append(found.append)
    run(net, rng, found)
    hook.clear()


def part(net: Net, rng: Random, found: list[Any]) -> None:
    """Some of the layers alone."""
    first, last = sorted(int(index) for index in rng.integers(2, len(net.layers), 2))
    found.append(net.forward(first, last))
    net.backward(last, first)


def expose(net: Net, rng: Random, found: list[Any]) -> None:
    """A caller keeps an array, and writes into it."""
    blob = net.params.learnable[0] if rng.random() < 0.3 else net.blobs["fc2"]
    memory = blob.data if rng.random() < 0.5 else blob.diff
    memory.exposed_host()[...] += 0.125


def rebind(net: Net, rng: Random, found: list[Any]) -> None:
    """A blob gets memory of its own, or another's."""
    memory = net.blobs[str(rng.choice(["pool1", "fc2", "norm1"]))].data
    fresh = type(memory)(net.backend)
    fresh.reshape(memory.shape)
    memory.share(fresh)


def jump(net: Net, rng: Random, found: list[Any]) -> None:
    """The run continues at another pass, or with another seed."""
    net.context.pass_number = int(rng.integers(1 << 40))
    net.context.seed = int(rng.integers(3))


EVENTS = (reshape, rewrite, look, part, expose, rebind, jump)


def history(seed: int, on: bool, length: int, device: str) -> tuple[list[Any], int]:
    """The results of a net in the course of random events, and the number of replays."""
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    with built(NET, device=device, replay=on) as net:
        for _ in range(length):
            run(net, rng, found)
            if rng.random() < 0.7:
                EVENTS[int(rng.integers(len(EVENTS)))](net, rng, found)
        return found, replays(net)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(6))
def test_a_replayed_history_is_the_same_bits(seed: int, device: str) -> None:
    found, count = history(seed, True, 12, device)
    assert count > 0
    assert same(found, history(seed, False, 12, device)[0])


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("seed", range(100, 112))
def test_long_histories_are_the_same_bits(seed: int, device: str) -> None:
    found, count = history(seed, True, 40, device)
    assert count > 0
    assert same(found, history(seed, False, 40, device)[0])
