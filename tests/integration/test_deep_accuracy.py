"""Winograd's convolutions through the paper's deepest stack, against float64 sums term by term."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from prototxt_gen import heads, proto
from prototxt_gen.spec import builtin_spec
from runtime.backend.base import Backend
from runtime.backend.cpu.backend import CpuBackend
from runtime.backend.cpu.native_plan import Passes
from runtime.core.context import RunContext
from runtime.net import Net
from tests.oracle.tolerance import tolerance
from tests.runtime.backend.native_kernels import needs_kernels

SIDE = 64
"""Net E's five stages on maps of 64, 32, 16, 8 and 4 pixels."""


def stack() -> proto.Message:
    """Every convolution, ReLU and pooling of net E, at full width."""
    net = heads.dense(builtin_spec("E"))
    kept = []
    for layer in net.layer:
        if layer.name.startswith("fc"):
            break
        kept.append(layer)
    del net.layer[:]
    net.layer.extend(kept)
    net.layer[0].input_param.shape[0].dim[:] = [1, 3, SIDE, SIDE]
    net.force_backward = True
    return net


def computed(backend: Backend) -> Net:
    """Forward and backward from a gradient of normal numbers; the same weights everywhere."""
    net = Net(stack(), proto.TRAIN, backend, RunContext(fill_weights=False))
    random = np.random.default_rng(0)
    for blob in net.params.learnable:
        fan_in = blob.count() // blob.shape[0]
        values = random.standard_normal(blob.shape) * (2 / fan_in) ** 0.5
        blob.data.mutable_host()[...] = values.astype(np.float32) if blob.num_axes > 1 else 0
    images = random.standard_normal((1, 3, SIDE, SIDE)).astype(np.float32)
    net.blobs["data"].data.mutable_host()[...] = images
    net.forward()
    top = net.blobs["pool5"]
    top.diff.mutable_host()[...] = random.standard_normal(top.shape).astype(np.float32)
    net.backward()
    return net


@pytest.fixture(scope="module")
def reference() -> Iterator[Net]:
    with computed(CpuBackend(dtype=np.float64)) as net:
        yield net


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Relative to the size of the whole: of L2 norms."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@needs_kernels
@pytest.mark.parametrize("way", ["exact", "table", "F(4x4) everywhere"])
def test_sixteen_convolutions_keep_their_digits(
    reference: Net, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance formula, relative, over all sums that a number has gone through."""
    if way.startswith("F"):
        monkeypatch.setattr(Passes, "of", classmethod(lambda cls, geom, exact: cls(4, 4, 4)))
    with computed(CpuBackend(exact=way == "exact")) as net:
        layers = [layer for layer in net.layers if layer.type == "Convolution"]
        algorithms = {layer.plan.algorithm for layer in layers}  # type: ignore[attr-defined]
        assert len(layers) == 16
        assert (
            algorithms
            == {
                "exact": {"native:rows/direct/rows", "native:direct"},
                "table": {
                    "native:rows/winograd_4x4/winograd_4x4",
                    "native:winograd_4x4",
                    "native:winograd_2x2",
                },
                "F(4x4) everywhere": {"native:winograd_4x4"},
            }[way]
        )
        sums = [layer.blobs[0].count() // layer.blobs[0].shape[0] for layer in layers]
        for i, layer in enumerate(layers):
            name = layer.param.top[0]
            far = error(net.blobs[name].data.host(), reference.blobs[name].data.host())
            assert far <= tolerance(np.float32, sum(sums[: i + 1]), 1.0), name
        for mine, theirs in zip(net.params.learnable, reference.params.learnable):
            # Through the whole stack forward, and back down to this layer.
            far = error(mine.diff.host(), theirs.diff.host())
            assert far <= tolerance(np.float32, 2 * sum(sums), 1.0), mine.name
