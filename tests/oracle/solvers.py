"""Solver types in float64, from the formulas of their papers, one weight at a time.

The problem has a known gradient: linear least squares, loss = 1/(2N) sum |W x + b - y|^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass
class Settings:
    """The fields of a SolverParameter."""

    type: str = "SGD"
    rate: float = 0.1
    momentum: float = 0.0
    momentum2: float = 0.999
    delta: float = 1e-8
    rms_decay: float = 0.99
    weight_decay: float = 0.0
    regularization: str = "L2"
    clip: float = -1.0
    lr_mults: Sequence[float] = (1.0, 1.0)
    decay_mults: Sequence[float] = (1.0, 1.0)


def gradient(weights: Floats, bias: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The gradients of the loss with respect to W and b."""
    error = x @ weights.T + bias - y
    return error.T @ x / len(x), error.sum(axis=0) / len(x)


def loss(weights: Floats, bias: Floats, x: Floats, y: Floats) -> float:
    return float(((x @ weights.T + bias - y) ** 2).sum() / (2 * len(x)))


@dataclass
class Learner:
    """Weights and their histories, updated together."""

    settings: Settings
    params: list[Floats]
    first: list[Floats] = field(default_factory=list)
    second: list[Floats] = field(default_factory=list)
    updates: int = 0

    def __post_init__(self) -> None:
        self.first = [np.zeros_like(p) for p in self.params]
        self.second = [np.zeros_like(p) for p in self.params]

    def step(self, passes: Sequence[Sequence[Floats]]) -> None:
        """Update by the gradients of iter_size passes: sum, clip, divide, regularise, step."""
        s = self.settings
        total = [sum(grads[1:], grads[0].copy()) for grads in zip(*passes)]
        norm = math.sqrt(sum(float((g * g).sum()) for g in total))
        scale = s.clip / norm if 0 <= s.clip < norm else 1.0
        self.updates += 1
        for i, (param, summed) in enumerate(zip(self.params, total)):
            flat = param.reshape(-1)
            histories = self.first[i].reshape(-1), self.second[i].reshape(-1)
            for k, g in enumerate((summed * scale / len(passes)).reshape(-1)):
                decay = s.weight_decay * s.decay_mults[i]
                penalty = flat[k] if s.regularization == "L2" else np.sign(flat[k])
                moments = float(histories[0][k]), float(histories[1][k])
                change, new = RULES[s.type](
                    s,
                    float(g) + decay * float(penalty),
                    moments,
                    s.rate * s.lr_mults[i],
                    self.updates,
                )
                flat[k] -= change
                histories[0][k], histories[1][k] = new


Moments = tuple[float, float]
Rule = Callable[[Settings, float, Moments, float, int], tuple[float, Moments]]
"""Takes settings, gradient, history, rate and the number of updates with this one; returns what is
subtracted from the weight, and the new history."""

RULES: dict[str, Rule] = {}
CASES: dict[str, Settings] = {}


def formula(type_name: str, **cases: Settings) -> Callable[[Rule], Rule]:
    """Register the formula of a solver type, with the settings it is tested with."""

    def enter(rule: Rule) -> Rule:
        RULES[type_name] = rule
        CASES.update(cases)
        return rule

    return enter


@formula(
    "SGD",
    sgd=Settings(),
    sgd_momentum=Settings(momentum=0.9, weight_decay=0.05),
    sgd_l1=Settings(momentum=0.5, weight_decay=0.05, regularization="L1"),
    sgd_clipped=Settings(momentum=0.9, clip=0.3),
)
def _sgd(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    v = s.momentum * h[0] + rate * g
    return v, (v, 0.0)


@formula("Nesterov", nesterov=Settings("Nesterov", momentum=0.9, weight_decay=0.05))
def _nesterov(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    v = s.momentum * h[0] + rate * g
    return v + s.momentum * (v - h[0]), (v, 0.0)


@formula("AdaGrad", adagrad=Settings("AdaGrad", weight_decay=0.05, delta=1e-3))
def _adagrad(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    total = h[0] + g * g
    return rate * g / (math.sqrt(total) + s.delta), (total, 0.0)


@formula("RMSProp", rmsprop=Settings("RMSProp", weight_decay=0.05, rms_decay=0.9, delta=1e-3))
def _rmsprop(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    mean = s.rms_decay * h[0] + (1 - s.rms_decay) * g * g
    return rate * g / (math.sqrt(mean) + s.delta), (mean, 0.0)


@formula("AdaDelta", adadelta=Settings("AdaDelta", rate=1.0, momentum=0.95, delta=1e-3))
def _adadelta(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    mean = s.momentum * h[0] + (1 - s.momentum) * g * g
    step = g * math.sqrt(h[1] + s.delta) / math.sqrt(mean + s.delta)
    return rate * step, (mean, s.momentum * h[1] + (1 - s.momentum) * step * step)


@formula(
    "Adam",
    adam=Settings("Adam", momentum=0.9, momentum2=0.99, weight_decay=0.05),
    adam_l1=Settings("Adam", momentum=0.9, weight_decay=0.05, regularization="L1"),
)
def _adam(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    m = s.momentum * h[0] + (1 - s.momentum) * g
    v = s.momentum2 * h[1] + (1 - s.momentum2) * g * g
    corrected = rate * math.sqrt(1 - s.momentum2**t) / (1 - s.momentum**t)
    return corrected * m / (math.sqrt(v) + s.delta), (m, v)
