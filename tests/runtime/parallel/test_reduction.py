"""Buckets of gradients, which are sent during the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.net import Net
from runtime.parallel import flat_params, reduction
from runtime.parallel.collective import ExchangeTable, ThreadCollective
from runtime.parallel.flat_params import GradientBuffers, Layout
from runtime.parallel.reduction import Bucket, Reduction, buckets_of
from runtime.parallel.shard_plan import ShardPlan
from tests.runtime.small_net import build

NET = """
name: "chain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" %s
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" %s
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "data" top: "loss" }
"""


@contextlib.contextmanager
def chain(first: str = "", last: str = "") -> Iterator[Net]:
    with build(NET % (first, last), proto.TRAIN, seed=3) as net:
        rng = np.random.default_rng(0)
        net.blobs["data"].data.mutable_host()[...] = rng.random((2, 3), np.float32)
        yield net


def counts(net: Net) -> list[int]:
    return [blob.count() for blob in net.params.learnable]


def test_buckets_are_whole_layers_from_the_top(monkeypatch: pytest.MonkeyPatch) -> None:
    with chain() as net:
        names = net.layer_names
        assert buckets_of(net, counts(net)) == [Bucket(0, 6, 0, 36, names.index("a"))]
        monkeypatch.setattr(reduction, "BUCKET", 9)
        assert buckets_of(net, counts(net)) == [
            Bucket(4, 6, 24, 36, names.index("c")),
            Bucket(2, 4, 12, 24, names.index("b")),
            Bucket(0, 2, 0, 12, names.index("a")),
        ]


def test_shared_weights_are_complete_with_their_lowest_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduction, "BUCKET", 1)
    shared = 'param { name: "w" }'
    with chain(shared, shared) as net:
        found = {bucket.first: bucket.ready for bucket in buckets_of(net, counts(net))}
        assert net.params.names[0] == "a[0]"
        assert found[0] == net.layer_names.index("a")
        assert found[4] == net.layer_names.index("c")


class Noted(ThreadCollective):
    """Records the layer of the last backward pass at each post."""

    def __init__(self, table: ExchangeTable, rank: int, over: list[str]) -> None:
        super().__init__(table, rank)
        self.over = over
        self.posts: list[str] = []

    def post(self, outgoing: Any, sizes: Any) -> Any:
        self.posts.append(self.over[-1])
        return super().post(outgoing, sizes)


def test_gradients_leave_while_lower_layers_are_still_to_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduction, "BUCKET", 9)
    monkeypatch.setattr(flat_params, "CHUNK", 4)
    table, plan = ExchangeTable(2), ShardPlan(4, 2, 2)
    with chain() as first, chain() as second:
        links, sums = [], []
        for rank, net in enumerate((first, second)):
            over: list[str] = []
            net.after_backward.append(lambda i, net=net, over=over: over.append(net.layer_names[i]))
            links.append(Noted(table, rank, over))
            buffers = GradientBuffers(net, Layout(counts(net)))
            buffers.begin()
            sums.append(Reduction(net, buffers, plan, links[rank]))
            net.blobs["data"].data.mutable_host()[...] += rank
            net.forward()
            sums[rank].open([], [])
            net.backward()
        assert [link.posts for link in links] == [["c", "b", "a"]] * 2
        expected = (sums[0].buffers.current + sums[1].buffers.current) / 2
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Reduction.close, sums))
        for rank, one in enumerate(sums):
            at, count = one.buffers.layout.part(rank, 2)
            part = slice(at, at + count)
            np.testing.assert_array_equal(one.buffers.current[part], expected[part])


def test_a_failed_pass_leaves_nothing_behind() -> None:
    with chain() as net:
        buffers = GradientBuffers(net, Layout(counts(net)))
        alone = Reduction(net, buffers, ShardPlan(2, 2, 1), ThreadCollective(ExchangeTable(1), 0))
        net.forward()
        buffers.begin()
        alone.open([], [])
        alone.cancel()
        net.backward()
        whole = buffers.current.copy()
        buffers.begin()
        alone.open([], [])
        net.backward()
        alone.close()
        np.testing.assert_array_equal(buffers.current, whole / 2)


@pytest.mark.parametrize("replicas", [1, 2])
def test_what_does_not_learn_has_a_gradient_of_zeros(replicas: int) -> None:
    """Reused memory has the last iteration's values until it is read."""
    table = ExchangeTable(replicas)
    with contextlib.ExitStack() as stack:
        sums = []
        for rank in range(replicas):
            net = stack.enter_context(chain("param { lr_mult: 0 } param { lr_mult: 0 }"))
            buffers = GradientBuffers(net, Layout(counts(net)))
            plan, link = ShardPlan(4, 2, replicas), ThreadCollective(table, rank)
            sums.append(Reduction(net, buffers, plan, link))
            net.forward()
            buffers.begin().fill(np.nan)
            sums[rank].open([], [])
            net.backward()
        with ThreadPoolExecutor(replicas) as pool:
            list(pool.map(Reduction.close, sums))
        for rank, one in enumerate(sums):
            at, count = one.buffers.layout.part(rank, replicas)
            assert np.isfinite(one.buffers.current[at : at + count]).all()
        assert not sums[0].buffers.current[:12].any()
