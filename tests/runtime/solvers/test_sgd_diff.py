"""The diffs after an update: the update, as in Caffe, if they can be read; otherwise undefined."""

from __future__ import annotations

import numpy as np
import pytest

from prototxt_gen import proto
from runtime.backend.registry import create_backend
from runtime.solvers.options import SolverOptions
from runtime.solvers.solver import Solver
from tests.runtime.small_nets import input_layer, layer, net_param


def trained(options: SolverOptions, **settings: object) -> tuple[np.ndarray, np.ndarray]:
    """The initial weights minus those after one step, and the diff after it."""
    filled = 'weight_filler { type: "xavier" }'
    layers = input_layer(4, 3, name="data") + input_layer(4, 2, name="label")
    ip = f"inner_product_param {{ num_output: 2 {filled} }}"
    layers += layer("InnerProduct", "ip", "data", ip) + layer("EuclideanLoss", "l", "ip label")
    param = proto.SolverParameter(
        base_lr=0.1, lr_policy="fixed", momentum=0.9, weight_decay=0.01, random_seed=1, **settings
    )
    param.net_param.CopyFrom(net_param(layers))
    solver = Solver(param, create_backend("cpu"), options)
    for name in ("data", "label"):
        blob = solver.net.blobs[name]
        blob.data.mutable_host()[...] = np.random.default_rng(0).standard_normal(blob.shape)
    weights = solver.net.params.learnable[0]
    before = weights.data.host().copy()
    solver.step(1)
    return before - weights.data.host(), weights.diff.host().copy()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (SolverOptions(), {}),
        (SolverOptions(share_activations=True), {"snapshot_diff": True}),
        (SolverOptions(share_activations=True), {"debug_info": True}),
    ],
)
def test_the_diff_is_what_was_taken_off(
    options: SolverOptions, settings: dict[str, object]
) -> None:
    step, diff = trained(options, **settings)
    np.testing.assert_allclose(diff, step, rtol=1e-5, atol=1e-7)


def test_without_a_reader_nothing_is_copied() -> None:
    step, diff = trained(SolverOptions(share_activations=True))
    assert step.any() and not np.allclose(diff, step, rtol=1e-2)
