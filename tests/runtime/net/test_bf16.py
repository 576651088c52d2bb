"""Nets in precision bf16 on the CPU: which values are rounded, and what changes no bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.bf16 import round_bf16
from runtime.backend.cpu.native_library import why_not
from tests.runtime.net.replayed import (
    INPUTS,
    LAYERS,
    LOSS,
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
from tests.runtime.small_nets import conv, layer

BF16: dict[str, Any] = {"precision": "bf16"}
FIXED = 'lr_policy: "fixed"'
# Layers of all kinds whose maps are rounded, with branches, in-place layers and groups.
VARIED = INPUTS + (
    conv("conv1", "data", 8, 3, f"pad: 1 {XAVIER}")
    + layer("BatchNorm", "bn1", "conv1", "batch_norm_param { use_global_stats: true }", top="conv1")
    + layer("Scale", "scale1", "conv1", "scale_param { bias_term: true }", top="conv1")
    + layer("ReLU", "relu1", "conv1", top="conv1")
    + conv("left", "conv1", 8, 3, f"pad: 1 group: 2 {XAVIER}")
    + conv("right", "conv1", 8, 1, XAVIER)
    + layer("PReLU", "prelu", "right", top="right")
    + layer("TanH", "tanh", "left", top="left")
    + layer("Eltwise", "sum", "left right")
    + layer("Concat", "both", "sum conv1")
    + layer("Pooling", "mean", "both", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }")
    + layer("LRN", "norm", "mean", "lrn_param { alpha: 0.1 }")
    + layer("Pooling", "pool", "norm", "pooling_param { kernel_size: 2 stride: 2 }")
    + dense("fc2", "pool", 8)
    + layer("Dropout", "drop2", "fc2", top="fc2")
    + dense("fc3", "fc2", 3)
    + LOSS
)
needs_kernels = pytest.mark.skipif(why_not() is not None, reason="the kernels are not built")


def is_rounded(array: np.ndarray[Any, Any]) -> bool:
    return np.array_equal(array, round_bf16(array))


def test_maps_are_rounded_and_weights_are_not() -> None:
    with built(VARIED, device="cpu", **BF16) as net:
        feed(net, 1)
        net.forward()
        net.backward()
        maps = [name for name in net.blobs if name not in ("data", "label", "loss")]
        assert "sum" in maps
        assert [name for name in maps if not is_rounded(net.blobs[name].data.host())] == []
        blobs = net.params.learnable
        assert all(blob.data.host().dtype == np.float32 for blob in blobs)
        assert any(not is_rounded(blob.data.host()) for blob in blobs)
        assert any(not is_rounded(blob.diff.host()) for blob in blobs)
        assert not is_rounded(net.blobs["data"].data.host())
        labels = net.blobs["label"].data.mutable_host()
        labels[...] = 2
        net.forward()
        np.testing.assert_array_equal(net.blobs["label"].data.host(), 2)


def test_labels_beyond_the_integers_of_bf16() -> None:
    """bf16 has no 257: labels and losses are not maps."""
    layers = INPUTS + dense("fc", "data", 300)
    layers += layer("SoftmaxWithLoss", "loss", "fc label") + layer("Accuracy", "acc", "fc label")
    with built(layers, proto.TEST, "cpu", **BF16) as net:
        feed(net, 1)
        net.blobs["label"].data.mutable_host()[...] = 257
        net.params.learnable[1].data.mutable_host()[257] = 60
        assert net.forward() == pytest.approx(0, abs=1e-6)
        assert net.blobs["acc"].data.host() == 1


@needs_kernels
def test_numpy_and_the_kernels_give_the_same_losses() -> None:
    """Maps agree but for the float32 ops between the products, which may differ in a last bit."""
    losses = []
    for native in (True, False):
        with built(VARIED, device="cpu", native=native, **BF16) as net:
            losses.append([found for found in passes(net, 2) if np.ndim(found) == 0])
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.01)


@needs_kernels
def test_replays_and_threads_do_not_change_bits() -> None:
    results = []
    for options in ({}, {"replay": False}, {"threads": 1}, {"threads": 3}):
        with built(TRAINED, device="cpu", **options, **BF16) as net:
            results.append(passes(net, 8))
            assert (replays(net) > 4) is options.get("replay", True)
    assert all(same(results[0], other) for other in results[1:])
    replayed, plain = (trained("cpu", FIXED, replay=on, **BF16) for on in (True, False))
    assert replays(replayed.net) >= 12
    assert same(weights(replayed), weights(plain))
    assert not same(weights(replayed), weights(trained("cpu", FIXED)))


def test_an_image_does_not_depend_on_its_batch() -> None:
    with built(INPUTS + LAYERS, proto.TEST, "cpu", **BF16) as net:
        feed(net, 1)
        images = net.blobs["data"].data.host().copy()
        net.forward()
        whole = net.blobs["fc3"].data.host().copy()
        net.blobs["data"].reshape((1, *images.shape[1:]))
        for index, image in enumerate(images):
            net.blobs["data"].data.mutable_host()[...] = image[None]
            net.forward()
            assert net.blobs["fc3"].data.host().tobytes() == whole[index : index + 1].tobytes()


def test_a_warning_if_bf16_is_not_fast(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from runtime.backend.cpu import backend

    backend._warn_once.cache_clear()
    for _ in range(2):
        made = CpuBackend(**BF16, native=None if why_not() is None else False)
        assert made.rows_independent
    if not made.recorder or backend.native_library.load(1).isa != backend.AMX:  # type: ignore[union-attr]
        assert caplog.text.count("precision bf16") == 1
    backend._warn_once.cache_clear()
    CpuBackend()
    assert caplog.text.count("precision bf16") <= 1
