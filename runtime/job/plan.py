"""The net and training of the main job: the paper's on ILSVRC-2012, a narrow net on the demo."""

from __future__ import annotations

import logging
from fractions import Fraction
from typing import Any

from prototxt_gen import heads, proto
from prototxt_gen.destination import utf8_path
from prototxt_gen.errors import DeviceError
from prototxt_gen.integers import ceil_div
from prototxt_gen.sidecar import Scale
from prototxt_gen.solver import solver_param
from prototxt_gen.spec import NetSpecification, builtin_spec, with_values
from runtime.analysis.memory_estimate import in_gib, passes_within
from runtime.backend.base import Backend
from runtime.core.context import RunContext
from runtime.core.sharing import Sharing
from runtime.job.prepare import Prepared
from runtime.net.shape_net import shape_net

log = logging.getLogger("verydeep.job")

DEMO_CROP = 64
DEMO_VALUES: dict[str, Any] = {
    "width": Fraction(1, 8),
    "dropout": 0.3,
    "init.method": "xavier",
    "init.first_std": 0.01,
    "data.train.options.short_side": (64, 80),
    "data.test.options.short_side": 72,
    "data.train.batch_size": 32,
    "data.train.mirror": False,
    "data.test.batch_size": 100,
    "solver.base_lr": 0.01,
    "solver.lr_policy": "poly",
    "solver.max_iter": 2000,
    "solver.test_interval": 250,
    "solver.display": 25,
    "solver.snapshot": 500,
    "solver.solver_mode": "CPU",
}
"""Differences from the paper's training, for 72-pixel images and minutes instead of weeks.

Digits are not mirrored, because a mirrored digit is not a digit.
"""


def stored_side(demo: bool, scale: Scale) -> int:
    """The short side of stored images in pixels: the largest that training or testing reads."""
    if demo:
        return 112
    return scale[1] if isinstance(scale, tuple) else scale or 256


def base_spec(net: str, demo: bool) -> NetSpecification:
    """The specification before the data is prepared.

    Raises:
        ProtoError: there is no net of this name.
    """
    if not demo:
        return builtin_spec(net)
    spec = with_values(builtin_spec(net, DEMO_CROP), DEMO_VALUES)
    return with_values(spec, {"name": f"{spec.name}-demo"})


def fit_to_data(
    spec: NetSpecification, data: Prepared, gpu: bool, max_iter: int | None
) -> NetSpecification:
    """The spec with the classes, sources, mean, colour components and test size of the data."""
    values: dict[str, Any] = {
        "classes": len(data.synsets),
        "data.mean_value": data.mean_pixel,
        "data.train.source": utf8_path(data.train),
        "data.test.source": utf8_path(data.val),
        "data.train.options.pca": utf8_path(data.pca),
        "solver.solver_mode": "GPU" if gpu else "CPU",
        "solver.test_iter": ceil_div(data.val_images, spec.data.test.batch_size),
    }
    if max_iter is not None:
        values |= {"solver.max_iter": max_iter, "solver.stepvalue": ()}
        values |= {"solver.snapshot": min(spec.solver.snapshot, max_iter)}
        values |= {"solver.test_interval": min(spec.solver.test_interval, max_iter)}
    return with_values(spec, values)


def within_memory(spec: NetSpecification, backend: Backend, budget: int) -> NetSpecification:
    """The spec with the batch divided into passes that fit into memory; the gradient is the same.

    Raises:
        DeviceError: a single image does not fit.
    """
    solver = solver_param(spec, "", "")
    context = RunContext(sharing=Sharing())
    net = shape_net(heads.train_val(spec), proto.TRAIN, backend, context)
    passes = passes_within(net, budget, spec.train_batch, solver)
    if passes is None:
        raise DeviceError(
            f"net {spec.name}: even one image does not fit into {in_gib(budget)}; expected more "
            "memory; use a narrower net or a smaller crop"
        )
    if passes == 1:
        return spec
    iter_size = spec.solver.iter_size * passes
    log.info(
        "The batch of %d is computed in %d passes to fit into %s",
        spec.data.train.batch_size,
        iter_size,
        in_gib(budget),
    )
    return with_values(spec, {"solver.iter_size": iter_size})
