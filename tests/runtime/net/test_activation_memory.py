from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import TrainingError
from prototxt_gen.spec import builtin_spec
from runtime.analysis.memory_estimate import memory_estimate
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.rng import CaffeRandom
from runtime.core.sharing import Sharing
from runtime.net import Net
from runtime.net.activation_memory import Span, pack, plan_activations
from tests.runtime.small_nets import conv, input_layer, layer, net_param, shapes_of

GAUSSIAN = 'weight_filler { type: "xavier" }'
TRAIN = (
    input_layer(4, 3, 12, 12)
    + input_layer(4, name="label")
    + conv("c1", "data", 8, 3, f"pad: 1 {GAUSSIAN}")
    + layer("ReLU", "r1", "c1", top="c1")
    + layer("LRN", "n1", "c1")
    + layer("Pooling", "p1", "n1", "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("left", "p1", 4, 3, GAUSSIAN)
    + conv("right", "p1", 4, 3, GAUSSIAN)
    + layer("ReLU", "r2", "right", "relu_param { negative_slope: 0.1 }", top="right")
    + layer("Concat", "both", "left right")
    + layer("Flatten", "flat", "both")
    + layer("InnerProduct", "fc", "flat", f"inner_product_param {{ num_output: 10 {GAUSSIAN} }}")
    + layer("Dropout", "d", "fc", top="fc")
    + layer("InnerProduct", "scores", "fc", f"inner_product_param {{ num_output: 5 {GAUSSIAN} }}")
    + layer("Accuracy", "right_ones", "scores label")
    + layer("SoftmaxWithLoss", "loss", "scores label")
)


POOLED = (
    input_layer(4, 3, 12, 12)
    + input_layer(4, name="label")
    + conv("c1", "data", 8, 3, f"pad: 1 {GAUSSIAN}")
    + layer("ReLU", "r1", "c1", top="c1")
    + layer("Pooling", "p1", "c1", "pooling_param { kernel_size: 3 stride: 2 }")
    + conv("c2", "p1", 6, 3, f"pad: 1 {GAUSSIAN}")
    + layer("ReLU", "r2", "c2", top="c2")
    + layer("Pooling", "p2", "c2", "pooling_param { kernel_size: 2 stride: 2 }")
    + layer("Dropout", "d2", "p2", top="p2")
    + layer("InnerProduct", "scores", "p2", f"inner_product_param {{ num_output: 5 {GAUSSIAN} }}")
    + layer("SoftmaxWithLoss", "loss", "scores label")
)


class Poisoned(Sharing):
    """Memory in which nothing lasts from one pass to the next."""

    def array(self, backend: Any, count: int) -> Any:
        array = super().array(backend, count)
        array.fill(np.nan)
        return array


def build(layers: str, phase: int, sharing: Sharing | None) -> Net:
    context = RunContext(seed=3, rng=CaffeRandom(7), sharing=sharing)
    net = Net(net_param(layers), phase, create_backend("cpu"), context)
    feed(net)
    return net


def feed(net: Net) -> None:
    values = np.random.default_rng(1).standard_normal(net.blobs["data"].shape)
    net.blobs["data"].data.mutable_host()[...] = values
    if "label" in net.blobs:
        net.blobs["label"].data.mutable_host()[...] = np.arange(4)


def test_spans_that_meet_never_overlap() -> None:
    dice = random.Random(5)
    for _ in range(200):
        spans = []
        for _ in range(dice.randint(1, 25)):
            first = dice.randint(0, 20)
            spans.append(Span((), dice.randint(1, 1000), first, first + dice.randint(0, 8)))
        offsets, total = pack(spans)
        for i, span in enumerate(spans):
            assert offsets[i] % 64 == 0
            assert offsets[i] + span.count <= total
            for j in range(i):
                if span.overlaps(spans[j]):
                    apart = offsets[j] + spans[j].count <= offsets[i]
                    assert apart or offsets[i] + span.count <= offsets[j]


def test_a_chain_takes_its_two_largest_neighbours() -> None:
    spans = [Span((), count, step, step + 1) for step, count in enumerate((640, 64, 128, 320))]
    assert pack(spans)[1] == 640 + 64


@pytest.mark.parametrize("layers", [TRAIN, POOLED], ids=["branches", "poolings"])
@pytest.mark.parametrize("sharing", [Sharing(), Poisoned()], ids=["shared", "poisoned"])
def test_training_gives_the_same_gradients(sharing: Sharing, layers: str) -> None:
    with build(layers, proto.TRAIN, None) as own, build(layers, proto.TRAIN, sharing) as shared:
        for _ in range(2):
            for net in (own, shared):
                net.clear_param_diffs()
            assert own.forward() == shared.forward()
            for net in (own, shared):
                net.backward()
            for mine, theirs in zip(own.params.learnable, shared.params.learnable):
                assert mine.diff.host().any()
                assert np.array_equal(mine.diff.host(), theirs.diff.host()), mine.name


def test_a_test_net_keeps_outputs_and_what_was_asked_for() -> None:
    sharing = Poisoned(keep=frozenset({"p1"}))
    with build(TRAIN, proto.TEST, None) as own, build(TRAIN, proto.TEST, sharing) as shared:
        assert own.forward() == shared.forward()
        for name in [*own.outputs, "p1", "data"]:
            assert np.array_equal(own.blobs[name].data.host(), shared.blobs[name].data.host())
        plan = plan_activations(shared, sharing.keep)
        assert plan.total < sum(span.count for span in plan.spans)


def test_new_shapes_are_planned_again() -> None:
    layers = input_layer(1, 3, 12, 12) + conv("c1", "data", 8, 3) + conv("c2", "c1", 4, 3)
    with build(layers, proto.TEST, None) as own, build(layers, proto.TEST, Poisoned()) as shared:
        for shape in ((2, 3, 20, 16), (1, 3, 8, 8), (3, 3, 20, 30)):
            for net in (own, shared):
                net.blobs["data"].reshape(shape)
                feed(net)
                net.forward()
            assert np.array_equal(own.blobs["c2"].data.host(), shared.blobs["c2"].data.host())


def test_nets_share_one_array() -> None:
    sharing = Poisoned()
    with (
        build(TRAIN, proto.TRAIN, sharing) as train,
        build(TRAIN, proto.TEST, sharing) as test,
        build(TRAIN, proto.TRAIN, None) as own,
    ):
        test.forward()
        loss = train.forward()
        train.backward()
        first = test.forward()
        assert (loss, first) == (own.forward(), test.forward())
        own.backward()
        for mine, theirs in zip(own.params.learnable, train.params.learnable):
            assert np.array_equal(mine.diff.host(), theirs.diff.host())


def test_the_gradient_of_a_net_that_cannot_learn_is_refused() -> None:
    with build(TRAIN, proto.TEST, Sharing()) as net:
        net.forward()
        with pytest.raises(
            TrainingError,
            match="net 'small': its activations share memory, so it has no backward pass; "
            "expected a net that learns in phase TRAIN; build it without sharing",
        ):
            net.backward()


def test_a_diff_that_is_not_written_stays_zero() -> None:
    """Split adds up the diffs of all its tops, also of one whose reader has no gradient."""
    with build(TRAIN, proto.TRAIN, Poisoned()) as net:
        net.forward()
        net.backward()
        assert not net.blobs["scores_scores_0_split_0"].diff.host().any()


def test_the_paper_s_deepest_net_takes_a_fraction() -> None:
    """Of the activations of Table 1's net E: the two largest maps, not all of them."""
    param = heads.deploy(builtin_spec("E"))
    with shapes_of("", phase=proto.TEST) as empty:
        backend = empty.backend
    nets = [
        Net(param, proto.TEST, backend, RunContext(fill_weights=False, sharing=sharing))
        for sharing in (None, Sharing())
    ]
    own, shared = (memory_estimate(net) for net in nets)
    largest = 4 * 10 * 64 * 224 * 224
    assert largest < shared.activations <= 2.1 * largest
    assert own.activations > 2.5 * shared.activations
    assert dataclasses.replace(own, activations=0) == dataclasses.replace(shared, activations=0)


def test_a_pooling_takes_the_gradient_of_the_relu_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not where its maxima are overwritten, nor where blobs are observed."""
    for sharing, expected in ((Sharing(), ["r2"]), (None, ["r2", "r1"])):
        with build(POOLED, proto.TRAIN, sharing) as net:
            relus = [each for each in net.layers if each.type == "ReLU"]
            calls: list[str] = []
            note = calls.append
            for each in relus:
                monkeypatch.setattr(each, "backward", lambda *a, at=each, note=note: note(at.label))
            net.forward()
            net.backward()
            assert calls == [f"layer '{name}' (ReLU)" for name in expected]
