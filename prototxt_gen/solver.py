"""The solver of a specification: the prototxt, and the sidecar for what it has no fields for."""

from __future__ import annotations

from pathlib import Path

from prototxt_gen import proto, vgg
from prototxt_gen.proto import Message
from prototxt_gen.sidecar import Sidecar
from prototxt_gen.sidecar_link import sidecar_comment
from prototxt_gen.spec import NetSpecification
from prototxt_gen.text import to_text

_FIELDS = (
    "test_interval",
    "base_lr",
    "display",
    "max_iter",
    "momentum",
    "weight_decay",
    "snapshot",
    "random_seed",
)

_MOST_STEPS = 10_000


def solver_param(spec: NetSpecification, net_path: str, snapshot_prefix: str) -> Message:
    """The SolverParameter of a specification.

    Original Caffe has no policy for drops on a plateau: there, the rate drops by the same factor
    and as often, at fixed iterations.
    """
    values = spec.solver
    solver = proto.SolverParameter(net=net_path, snapshot_prefix=snapshot_prefix)
    for name in _FIELDS:
        setattr(solver, name, getattr(values, name))
    solver.test_iter.append(values.test_iter)
    if values.iter_size > 1:
        solver.iter_size = values.iter_size
    if values.lr_policy in ("fixed", "poly"):
        solver.lr_policy = values.lr_policy
        if values.lr_policy == "poly":
            solver.power = values.power
    else:
        solver.lr_policy = "multistep"
        solver.gamma = spec.schedule.factor
        solver.stepvalue.extend(stepvalues(spec))
    solver.solver_mode = solver.GPU if values.solver_mode == "GPU" else solver.CPU
    if spec.init.weights:
        solver.weights.append(spec.init.weights)
    if spec.finetune is not None:
        solver.weights.append(spec.finetune.weights)
    return solver


def solver_text(param: Message, sidecar: Path) -> str:
    """A solver prototxt with the comment that names its sidecar."""
    return sidecar_comment(sidecar) + to_text(param)


def stepvalues(spec: NetSpecification) -> tuple[int, ...]:
    """The iterations at which multistep drops the rate: the spec's own, or evenly spread ones.

    The paper does not give the iterations at which its rate dropped. The first rate, which takes
    the longest to stop improving, has two fifths of the iterations; the drops, 10,000 at most,
    share the rest.
    """
    if spec.solver.stepvalue:
        return spec.solver.stepvalue
    drops, last = min(spec.schedule.max_drops, _MOST_STEPS), spec.solver.max_iter
    steps = (last * (2 * drops + 3 * index) // (5 * drops) for index in range(drops))
    return tuple(dict.fromkeys(step for step in steps if step >= 1))


def sidecar_of(spec: NetSpecification) -> Sidecar:
    """The options of a specification that a SolverParameter has no fields for."""
    return Sidecar(
        train=spec.data.train.options,
        test=spec.data.test.options,
        schedule=spec.schedule if spec.solver.lr_policy == "plateau" else None,
        shards=spec.shards,
        precision=spec.precision,
        weights_layers=vgg.INITIAL_NET.layers if spec.init.method == "from-net-a" else (),
    )
