"""The flat array of weights, and the owners of its parts."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.parallel import flat_params
from runtime.parallel.flat_params import GradientBuffers, Layout
from tests.runtime.small_net import build

SHARED = """
name: "shared"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
  inner_product_param { num_output: 3 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "data" top: "loss" }
"""


@pytest.mark.parametrize("owners", [1, 2, 3, 8])
@pytest.mark.parametrize("counts", [[5, 100, 0, 33, 7], [3], [64, 64]])
def test_every_element_has_one_owner(
    monkeypatch: pytest.MonkeyPatch, owners: int, counts: list[int]
) -> None:
    monkeypatch.setattr(flat_params, "CHUNK", 16)
    layout = Layout(counts)
    seen = np.zeros(layout.total, int)
    for owner in range(owners):
        at, count = layout.part(owner, owners)
        for segment in layout.segments(owner, owners):
            seen[segment.offset : segment.offset + segment.count] += 1
            assert segment.offset == layout.offsets[segment.index] + segment.start
            assert segment.start % 16 == 0
            assert sum(size for _, size in segment.chunks()) == segment.count
            assert at <= segment.offset and segment.offset + segment.count <= at + count
    assert (seen == 1).all()


def test_owners_share_evenly() -> None:
    layout = Layout([102_760_448, 4096, 16_777_216, 4096, 4_096_000, 1000])
    sizes = [layout.part(owner, 4)[1] for owner in range(4)]
    assert max(sizes) - min(sizes) <= 2 * flat_params.CHUNK


def test_the_net_adds_to_the_present_gradient() -> None:
    with build(SHARED, proto.TRAIN, seed=3) as net:
        buffers = GradientBuffers(net, Layout([b.count() for b in net.params.learnable]))
        net.forward()
        first = buffers.begin()
        first.fill(np.nan)
        net.backward()
        once = first.copy()
        assert np.abs(once).min() > 0
        net.backward()
        np.testing.assert_allclose(first, 2 * once, rtol=1e-6)
        kept = buffers.take()
        second = buffers.begin()
        net.backward()
        np.testing.assert_array_equal(second, once)
        np.testing.assert_allclose(kept, 2 * once, rtol=1e-6)
        sharers = [net.layer_by_name(name) for name in ("a", "b")]
        shared = [layer.blobs[0].diff.host() for layer in sharers if layer is not None]
        assert shared[0] is not shared[1] and np.shares_memory(*shared)
        buffers.merge([kept, kept], 0, 5)
        np.testing.assert_allclose(second[:5], 5 * once[:5], rtol=1e-6)
        np.testing.assert_array_equal(second[5:], once[5:])
        buffers.merge([], 5, second.size, 0.5)
        np.testing.assert_array_equal(second[5:], once[5:] / 2)
        buffers.give_back(kept)
        assert buffers.take() is second and buffers.begin() is kept


def test_what_no_pass_added_to_is_zero_once_settled() -> None:
    with build(SHARED, proto.TRAIN, seed=3) as net:
        counts = [b.count() for b in net.params.learnable]
        buffers = GradientBuffers(net, Layout(counts))
        buffers.begin().fill(np.nan)
        buffers.settle(1, len(counts))
        assert not buffers.current[counts[0] :].any()
        assert np.isnan(buffers.current[: counts[0]]).all()
        buffers.settle(0, 1)
        assert not buffers.current.any()
