"""The learning rate as a function of the iteration. Caffe: SGDSolver::GetLearningRate.

Functions of (SolverParameter, iteration, current_step) in float64; `iteration` is the number of
earlier updates. `plateau` depends on test scores and is in plateau.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from prototxt_gen.errors import ProtoError

Policy = Callable[[Any, int, int], tuple[float, int]]
"""Returns the rate and the new current_step."""


def _pow(base: float, exponent: float) -> float:
    """C's pow, which returns NaN or infinity when Python's raises."""
    try:
        return math.pow(base, exponent)
    except ValueError:
        return math.inf if base == 0 else math.nan
    except OverflowError:
        return math.inf


def fixed(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr."""
    return param.base_lr, current_step


def step(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr * gamma ^ floor(iteration / stepsize)."""
    current_step = iteration // param.stepsize
    return param.base_lr * _pow(param.gamma, current_step), current_step


def exp(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr * gamma ^ iteration."""
    return param.base_lr * _pow(param.gamma, iteration), current_step


def inv(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr * (1 + gamma * iteration) ^ -power."""
    return param.base_lr * _pow(1 + param.gamma * iteration, -param.power), current_step


def multistep(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr * gamma ^ (number of stepvalue reached), which grows by at most one per call."""
    if current_step < len(param.stepvalue) and iteration >= param.stepvalue[current_step]:
        current_step += 1
    return param.base_lr * _pow(param.gamma, current_step), current_step


def poly(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr * (1 - iteration / max_iter) ^ power; NVIDIA's min_lr is the rate at max_iter."""
    decay = _pow(1 - iteration / param.max_iter, param.power)
    if param.HasField("min_lr"):
        return param.min_lr + (param.base_lr - param.min_lr) * decay, current_step
    return param.base_lr * decay, current_step


def sigmoid(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """base_lr / (1 + exp(-gamma * (iteration - stepsize)))."""
    growth = _pow(math.e, -param.gamma * (iteration - param.stepsize))
    return param.base_lr / (1 + growth), current_step


def multifixed(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """The stagelr of the first stage whose stageiter is not exceeded, or of the last. Intel."""
    for rate, last in zip(param.stagelr, param.stageiter):
        if iteration <= last:
            return rate, current_step
    return param.stagelr[-1], current_step


POLICIES: dict[str, Policy] = {
    "fixed": fixed,
    "step": step,
    "exp": exp,
    "inv": inv,
    "multistep": multistep,
    "poly": poly,
    "sigmoid": sigmoid,
    "multifixed": multifixed,
}
_GAMMA = ("step", "exp", "inv", "multistep", "sigmoid")
_STEPSIZE = ("step", "sigmoid")


def learning_rate(param: Any, iteration: int, current_step: int) -> tuple[float, int]:
    """The rate of an iteration, and the new current_step.

    Raises:
        ProtoError: see check_policy.
    """
    check_policy(param)
    rate = warm_up(param, iteration)
    if rate is not None:
        return rate, current_step
    return POLICIES[param.lr_policy](param, iteration, current_step)


def warm_up(param: Any, iteration: int) -> float | None:
    """The rate of an iteration in which the rate grows to base_lr; None after them.

    Sources: NVIDIA Caffe (rampup_interval) and Intel Caffe (warmup_iter), GetLearningRate.
    """
    length, start = _warm_up_fields(param)
    if iteration >= length:
        return None
    return float(start + (param.base_lr - start) * iteration / length)


def _warm_up_fields(param: Any) -> tuple[int, float]:
    if param.warmup_iter > 0:
        return param.warmup_iter, param.warmup_start_lr
    return param.rampup_interval, param.rampup_lr


def check_policy(param: Any) -> None:
    """Check the lr_policy and the fields that it uses.

    Raises:
        ProtoError: an unknown policy, or a field is missing or out of range.
    """
    policy = param.lr_policy
    if policy == "plateau":
        raise ProtoError(
            "solver: lr_policy 'plateau' is not original Caffe's; expected the policy in the "
            "[schedule] table of the solver's .verydeep.toml, and one of Caffe's policies here; "
            "move it there"
        )
    if policy not in POLICIES:
        raise ProtoError(
            f"solver: Unknown learning rate policy: '{policy}'; expected one of "
            f"{', '.join(POLICIES)}; set lr_policy"
        )
    if param.warmup_iter > 0 and param.rampup_interval > 0:
        raise ProtoError(
            f"solver: warmup_iter {param.warmup_iter} and rampup_interval {param.rampup_interval} "
            "are both set; expected one of them, as they have the same meaning; remove one"
        )
    stages = len(param.stagelr)
    if policy == "multifixed" and not 1 <= stages == len(param.stageiter):
        raise ProtoError(
            "solver: lr_policy 'multifixed' expects as many stagelr as stageiter, at least one, "
            f"got {stages} and {len(param.stageiter)}; correct them"
        )
    checks = []
    if policy in _GAMMA:
        checks.append(("gamma", param.gamma, param.gamma >= 0, "at least 0"))
    if policy in _STEPSIZE:
        checks.append(("stepsize", param.stepsize, param.stepsize > 0, "more than 0"))
    if policy == "poly":
        checks.append(("max_iter", param.max_iter, param.max_iter > 0, "more than 0"))
    for key, value, valid, expected in checks:
        if not valid:
            raise ProtoError(
                f"solver: {key} does not suit lr_policy '{policy}'; expected {expected}, "
                f"got {value:g}; set {key}"
            )
