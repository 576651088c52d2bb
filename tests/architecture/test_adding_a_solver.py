"""A new solver type is added in a temporary copy: it takes two files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.architecture.test_adding import ROOT, run

pytestmark = pytest.mark.slow

COPIED = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime", "tests/oracle")
COPIED += ("tests/runtime/solvers",)

RULE = '''"""AdaMax: Adam with the largest recent gradient in place of the mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.backend.base import HostArray
from runtime.solvers.update_rule import UpdateRule, register_rule


@register_rule
class AdaMaxRule(UpdateRule):
    """The moving mean of the gradient, divided by the decayed maximum of its size."""

    type = "AdaMax"
    histories = 2

    def check(self, param: Any) -> None:
        """See UpdateRule.check."""
        self.delta = self.scalar(param.delta)
        self.momentum2 = self.scalar(param.momentum2)

    def compute(
        self, gradient: HostArray, history: Sequence[HostArray], rate: Any, iteration: int
    ) -> HostArray:
        """See UpdateRule.compute."""
        mean, largest = history
        mean *= self.momentum
        mean += (self.scalar(1) - self.momentum) * gradient
        largest *= self.momentum2
        np.maximum(largest, np.abs(gradient), out=largest)
        bias = self.scalar(1.0 - float(self.momentum) ** (iteration + 1))
        return np.asarray(rate / bias * mean / (largest + self.delta))
'''
FORMULA = """

@formula("AdaMax", adamax=Settings("AdaMax", momentum=0.9, momentum2=0.9, weight_decay=0.05))
def _adamax(s: Settings, g: float, h: Moments, rate: float, t: int) -> tuple[float, Moments]:
    m, u = s.momentum * h[0] + (1 - s.momentum) * g, max(s.momentum2 * h[1], abs(g))
    return rate / (1 - s.momentum**t) * m / (u + s.delta), (m, u)
"""
TRAIN = """
import sys
from pathlib import Path
from runtime.job.exactness import train_case, write_case

folder = Path(sys.argv[1])
solver = write_case(folder, "AdaMax")
solver.write_text(solver.read_text() + 'momentum: 0.9 momentum2: 0.99')
digests = {train_case(solver, 1), train_case(solver, 2)}
last = list((folder / "run").glob("exact_iter_6*"))
assert len(last) == 3
for path in last:
    path.unlink()
digests.add(train_case(solver, 2, snapshot="auto"))
assert len(digests) == 1, digests
"""


def contents(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_solver_type_takes_two_files(tmp_path: Path) -> None:
    """The rule, and its formula with cases; then it trains, on replicas too, and resumes."""
    copy, case = tmp_path / "copy", tmp_path / "case"
    case.mkdir()
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    before = contents(copy)
    (copy / "runtime/solvers/adamax.py").write_text(RULE, encoding="utf-8")
    with (copy / "tests/oracle/solvers.py").open("a", encoding="utf-8") as formulas:
        formulas.write(FORMULA)
    after = contents(copy)
    assert {str(path) for path in after if after[path] != before.get(path)} == {
        "runtime/solvers/adamax.py",
        "tests/oracle/solvers.py",
    }
    run(copy, "-m", "pytest", "-q", "tests/runtime/solvers/test_update_rules.py")
    run(copy, "-c", TRAIN, str(case))
