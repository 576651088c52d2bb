"""set_random_seed: fillers and dropout draw the numbers of original Caffe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import runtime.pycaffe as caffe
from runtime.pycaffe.session import SESSION
from tests.runtime.process.concurrent_nets import run_threads
from tests.runtime.pycaffe.conftest import Write
from tests.runtime.pycaffe.small_nets import DEPLOY, TRAINABLE, solver

GOLDEN = Path(__file__).parents[2] / "golden" / "refcases" / "rng"
SEEDS = json.loads((GOLDEN / "seeds.json").read_text())
DROPOUT = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 500 } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.3 } }
"""


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_original_caffes_own_draws(name: str) -> None:
    caffe.set_random_seed(SEEDS[name])
    net = caffe.Net(GOLDEN / f"{name}.prototxt", caffe.TRAIN)
    with np.load(GOLDEN / "expected.npz") as expected:
        if name.startswith("dropout"):
            net.blobs["d"].data[...] = 1
            result = np.stack([net.forward()["o"].copy() for _ in range(2)])
            assert np.array_equal(result, expected[name])
            return
        keys = [key for key in expected if key.startswith(f"{name}__")]
        assert len(keys) == 4
        for key in keys:
            _, layer, index = key.split("__")
            assert np.array_equal(net.params[layer][int(index)].data, expected[key])


def weights(net: caffe.Net) -> np.ndarray:
    return net.params["ip"][0].data.copy()


def test_the_stream_continues_from_net_to_net(write: Write) -> None:
    path = write(DEPLOY)
    caffe.set_random_seed(5)
    first, second = (weights(caffe.Net(path, caffe.TEST)) for _ in range(2))
    assert not np.array_equal(first, second)
    caffe.set_random_seed(5)
    assert np.array_equal(weights(caffe.Net(path, caffe.TEST)), first)
    assert np.array_equal(weights(caffe.Net(path, caffe.TEST)), second)


def test_a_solver_continues_the_stream_or_restarts_it(write: Write) -> None:
    net = write(TRAINABLE)
    caffe.set_random_seed(5)
    alone, next_alone = (weights(caffe.Net(net, caffe.TRAIN)) for _ in range(2))
    caffe.set_random_seed(5)
    assert np.array_equal(weights(caffe.get_solver(write(solver(net))).net), alone)
    caffe.set_random_seed(1)
    seeded = caffe.get_solver(write(solver(net, "random_seed: 5")))
    assert np.array_equal(weights(seeded.net), alone)
    assert SESSION.seed == 5
    assert np.array_equal(weights(caffe.Net(net, caffe.TRAIN)), next_alone)


def test_without_a_seed_processes_draw_different_numbers() -> None:
    assert type(SESSION)().seed != type(SESSION)().seed


def test_dropout_by_counter_does_not_take_from_the_stream(write: Write) -> None:
    path = write(DROPOUT)

    def masks() -> list[np.ndarray]:
        caffe.set_random_seed(2)
        net = caffe.Net(path, caffe.TRAIN)
        net.blobs["x"].data[...] = 1
        SESSION.random().raw()
        return [net.forward()["y"] > 0 for _ in range(2)]

    shifted = masks()
    caffe.set_dropout_stream("counter")
    counted = masks()
    assert not np.array_equal(counted[0], shifted[0])
    caffe.set_random_seed(2)
    net = caffe.Net(path, caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    assert np.array_equal(net.forward()["y"] > 0, counted[0])  # with any draws in between
    caffe.set_dropout_stream("caffe")
    SESSION.set_random_seed(2)
    net = caffe.Net(path, caffe.TRAIN)
    net.blobs["x"].data[...] = 1
    assert not np.array_equal(net.forward()["y"] > 0, shifted[0])  # the stream was not moved on
    with pytest.raises(RuntimeError, match="expected 'caffe' or 'counter', got 'best'"):
        caffe.set_dropout_stream("best")


def test_gradients_are_dropped_with_their_values(write: Write) -> None:
    net = caffe.Net(write("force_backward: true " + DROPOUT), caffe.TRAIN)
    net.blobs["x"].data[...] = 2
    y = net.forward()["y"].copy()
    assert 0.6 < (y > 0).mean() < 0.8
    np.testing.assert_allclose(y[y > 0], 2 / 0.7, rtol=1e-6)
    net.blobs["y"].diff[...] = 3
    np.testing.assert_allclose(net.backward()["x"], 1.5 * y, rtol=1e-6)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_a_seed_that_is_none(seed: int) -> None:
    with pytest.raises(RuntimeError, match="expected an integer of 0 to 4294967295, got"):
        caffe.set_random_seed(seed)


DRAWING = """layer { name: "in" type: "DummyData" top: "x" dummy_data_param {
  shape { dim: 2 dim: 50 } data_filler { type: "uniform" min: 1 max: 2 } } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.3 } }
"""


def test_a_seed_reaches_nets_that_exist(write: Write) -> None:
    """One stream: after a seed, dropout and DummyData of all nets draw from it in turn."""
    path = write(DRAWING)
    nets = [caffe.Net(path, caffe.TRAIN) for _ in range(2)]

    def draw(order: list[int]) -> list[bytes]:
        caffe.set_random_seed(9)
        return [nets[i].forward()["y"].tobytes() for i in order]

    first = draw([0, 0, 1])
    assert draw([1, 0, 1]) == first
    assert len(set(first)) == 3


def test_a_seed_reaches_a_solvers_nets(write: Write) -> None:
    made = caffe.get_solver(write(solver(write(DRAWING), "random_seed: 5")))
    caffe.set_random_seed(9)
    first = made.net.forward()["y"].tobytes()
    caffe.set_random_seed(9)
    assert made.net.forward()["y"].tobytes() == first


def test_a_solvers_seed_leaves_other_nets_their_stream(write: Write) -> None:
    path = write(DRAWING)
    caffe.set_random_seed(9)
    net = caffe.Net(path, caffe.TRAIN)
    alone = [net.forward()["y"].tobytes() for _ in range(2)]
    caffe.set_random_seed(9)
    net = caffe.Net(path, caffe.TRAIN)
    assert net.forward()["y"].tobytes() == alone[0]
    caffe.get_solver(write(solver(path, "random_seed: 5")))
    assert net.forward()["y"].tobytes() == alone[1]


def test_threads_have_streams_of_their_own(write: Write) -> None:
    path = write(DRAWING)

    def draw(seed: int | None) -> list[bytes]:
        if seed is not None:
            caffe.set_random_seed(seed)
        net = caffe.Net(path, caffe.TRAIN)
        return [net.forward()["y"].tobytes() for _ in range(20)]

    alone = {seed: draw(seed) for seed in (3, 4)}
    caffe.set_random_seed(4)
    functions = [lambda: draw(3), lambda: draw(None), lambda: draw(4)]
    assert run_threads(functions) == [alone[3], alone[4], alone[4]]


def test_a_thread_that_sets_a_seed_draws_from_it_in_any_net(write: Write) -> None:
    net = caffe.Net(write(DRAWING), caffe.TRAIN)

    def draw() -> bytes:
        caffe.set_random_seed(6)
        return bytes(net.forward()["y"].tobytes())

    expected = draw()
    net.forward()
    assert run_threads([draw]) == [expected]
