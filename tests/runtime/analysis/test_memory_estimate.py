from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest

from prototxt_gen import heads, proto
from prototxt_gen.errors import ProtoError, ShapeError
from prototxt_gen.spec import builtin_spec
from runtime.analysis.memory_estimate import GIB, budget_advice, memory_estimate
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.core.synced_memory import Head, Storage, SyncedMemory
from runtime.net import Net
from runtime.net.shape_net import of_batch, shape_net
from tests.runtime.small_nets import conv, input_layer, layer, net_param, product, shapes_of

TRAIN = (
    input_layer(6, 3, 12, 12)
    + input_layer(6, name="label")
    + conv("c1", "data", 8, 3, "pad: 1")
    + layer("ReLU", "r1", "c1", top="c1")
    + layer("LRN", "n1", "c1")
    + layer("Pooling", "p1", "n1", "pooling_param { kernel_size: 2 stride: 2 }")
    + conv("left", "p1", 4, 3)
    + conv("right", "p1", 4, 3)
    + layer("Concat", "both", "left right")
    + product("fc", "both", 10)
    + layer("Dropout", "d", "fc", top="fc")
    + product("scores", "fc", 5)
    + layer("SoftmaxWithLoss", "loss", "scores label")
)


def solver(**settings: Any) -> Any:
    return proto.SolverParameter(**settings)


def vgg(name: str, phase: int = proto.TRAIN, batch: int | None = None) -> Net:
    param = heads.train_val(builtin_spec(name))
    return shape_net(param, phase, create_backend("cpu"), batch=batch)


def touched(memories: Iterable[SyncedMemory]) -> int:
    """Bytes of the storages that were written or read."""
    storages: dict[int, Storage] = {id(memory.storage): memory.storage for memory in memories}
    return sum(
        storage.count * storage.dtype.itemsize
        for storage in storages.values()
        if storage.head is not Head.UNINITIALIZED
    )


def test_the_estimate_is_what_a_pass_takes() -> None:
    with Net(net_param(TRAIN), proto.TRAIN, create_backend("cpu")) as net:
        estimate = memory_estimate(net)
        net.clear_param_diffs()
        net.forward()
        net.backward()
        weights = net.params.learnable
        blobs = list(net.blobs.values())
        masks = [
            value
            for made in net.layers
            for value in vars(made).values()
            if isinstance(value, SyncedMemory)
        ]
        assert estimate.weights == touched(blob.data for blob in weights)
        assert estimate.weight_gradients == touched(blob.diff for blob in weights)
        assert estimate.inputs + estimate.activations == touched(blob.data for blob in blobs)
        assert estimate.activation_gradients == touched(blob.diff for blob in blobs)
        assert estimate.buffers == touched(masks)


def test_layers_with_several_masks_count_all_of_them() -> None:
    net = shapes_of(
        input_layer(2, 3, 8, 8) + layer("SPP", "spp", "data", "spp_param { pyramid_height: 3 }")
    )
    assert memory_estimate(net).buffers == 2 * 3 * (1 + 4 + 16) * 4


def test_net_d_is_counted_by_hand() -> None:
    estimate = memory_estimate(vgg("D", batch=2), solver=solver())
    weights = 4 * 138_357_544
    pooled = 64 * 112**2 + 128 * 56**2 + 256 * 28**2 + 512 * 14**2 + 512 * 7**2
    assert estimate.weights == estimate.weight_gradients == estimate.history == weights
    # The maxima's places in 4 bytes each, two dropout masks in 1, the probabilities in 4; and
    # the number that the loss was divided by.
    assert estimate.buffers == 2 * (4 * pooled + 2 * 4096 + 4 * 1000) + 4
    assert estimate.activation_gradients == estimate.activations
    assert estimate.forward == (
        weights + estimate.inputs + estimate.activations + estimate.buffers + estimate.workspace
    )
    assert estimate.backward == estimate.forward + weights + estimate.activation_gradients
    assert estimate.total == estimate.backward + weights
    assert estimate.as_dict()["total"] == estimate.total


def test_the_workspace_is_the_largest_plans() -> None:
    net = vgg("A", batch=1)
    plans = [layer.workspace_bytes for layer in net.layers if layer.type == "Convolution"]
    assert len(plans) == 8
    assert memory_estimate(net).workspace == max(plans) > 0


def test_another_batch_is_as_if_the_net_were_made_for_it() -> None:
    net = shapes_of(TRAIN, proto.TRAIN)
    thirty = memory_estimate(net, 30)
    assert thirty.batch == 30
    assert thirty == memory_estimate(shapes_of(TRAIN.replace("dim: 6 ", "dim: 30 "), proto.TRAIN))
    assert net.blobs["data"].shape == (6, 3, 12, 12)
    own = memory_estimate(net)
    assert (thirty.weights, thirty.inputs) == (own.weights, 5 * own.inputs)
    # The loss and its gradient stay one number each.
    assert thirty.activations - 4 == 5 * (own.activations - 4)
    assert memory_estimate(net, 6) == own


def test_another_batch_leaves_the_runs_random_numbers_alone() -> None:
    with Net(net_param(TRAIN), proto.TRAIN, create_backend("cpu"), RunContext(seed=3)) as net:
        memory_estimate(net, 3)
        drawn = net.context.rng.raw()
    with Net(net_param(TRAIN), proto.TRAIN, create_backend("cpu"), RunContext(seed=3)) as net:
        assert net.context.rng.raw() == drawn


@pytest.mark.parametrize(("kind", "copies"), [("SGD", 1), ("Nesterov", 1), ("Adam", 2)])
def test_each_solver_has_its_history(kind: str, copies: int) -> None:
    net = shapes_of(TRAIN, proto.TRAIN)
    estimate = memory_estimate(net, solver=solver(type=kind))
    assert estimate.history == copies * estimate.weights
    assert memory_estimate(net).history == 0


def test_an_unknown_solver_is_an_error() -> None:
    with pytest.raises(ProtoError, match="unknown type 'Adma'"):
        memory_estimate(shapes_of(TRAIN, proto.TRAIN), solver=solver(type="Adma"))


def test_a_net_that_does_not_learn_has_no_gradients() -> None:
    for net in (
        shapes_of(TRAIN),
        shapes_of(input_layer(1, 4) + product("p", "data", 2), proto.TRAIN),
    ):
        estimate = memory_estimate(net, solver=solver())
        assert not net.learns
        assert estimate.total == estimate.forward > 0


def test_weights_that_stay_as_they_are_pass_no_gradient_down() -> None:
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    layers = product("first", "data", 50, frozen) + product("second", "first", 2)
    ends = input_layer(4, 9) + input_layer(4, 2, name="goal")
    net = shapes_of(ends + layers + layer("EuclideanLoss", "loss", "second goal"), proto.TRAIN)
    # Only `second` and the loss have gradients.
    assert memory_estimate(net).activation_gradients == 4 * (4 * 2 + 1)


def test_what_fits_needs_no_advice() -> None:
    net = vgg("A", batch=4)
    whole = memory_estimate(net, solver=solver()).total
    assert budget_advice(net, whole, solver=solver()) == ""
    assert budget_advice(net, whole - 1, solver=solver()) != ""


def test_advice_keeps_the_images_of_an_iteration() -> None:
    net, budget = vgg("D"), 12 * GIB
    whole, part = (memory_estimate(net, batch, solver()).total / GIB for batch in (256, 64))
    assert budget_advice(net, budget, solver=solver(iter_size=2)) == (
        f"net 'VGG-D': a batch of 256 takes {whole:.2f} GiB; expected at most the 12.00 GiB there "
        "are; set batch_size: 64 in the net and iter_size: 8 in the solver: the same 512 images "
        f"per iteration in {part:.2f} GiB"
    )
    assert memory_estimate(net, 64, solver()).total <= budget
    assert memory_estimate(net, 128, solver()).total > budget


def test_advice_takes_the_largest_batch_that_fits() -> None:
    net = vgg("A", batch=12)
    for batch, passes in ((6, 2), (4, 3), (1, 12)):
        advice = budget_advice(net, memory_estimate(net, batch, solver()).total, solver=solver())
        assert f"set batch_size: {batch} in the net and iter_size: {passes} in" in advice


def test_advice_for_a_net_that_only_runs_forward() -> None:
    net = vgg("D", proto.TEST, batch=60)
    advice = budget_advice(net, 2 * GIB)
    batch = int(advice.partition("use a batch of ")[2].partition(":")[0])
    assert 60 % batch == 0
    assert memory_estimate(net, batch).total <= 2 * GIB
    assert "iter_size" not in advice


def test_advice_where_nothing_fits() -> None:
    advice = budget_advice(vgg("D"), GIB // 2, solver=solver())
    least = memory_estimate(vgg("D"), 1, solver()).total / GIB
    assert advice.endswith(
        f"even one image takes {least:.2f} GiB: use a smaller net, or more memory"
    )


def test_a_batch_is_at_least_one_image() -> None:
    with pytest.raises(ShapeError, match="expected at least 1 image, got 0; use a larger"):
        memory_estimate(shapes_of(TRAIN), 0)


def test_an_estimate_of_doubles_is_twice_as_large() -> None:
    single, double = (
        memory_estimate(shape_net(net_param(TRAIN), proto.TRAIN, create_backend("cpu", dtype=kind)))
        for kind in ("float32", "float64")
    )
    assert (double.weights, double.activations) == (2 * single.weights, 2 * single.activations)
    assert dataclasses.asdict(double)["batch"] == 6


def test_a_net_can_be_made_for_one_batch_after_another() -> None:
    net = shapes_of(TRAIN, proto.TRAIN)
    assert (
        of_batch(of_batch(net, 17), 6).blobs["scores"].shape == net.blobs["scores"].shape == (6, 5)
    )
