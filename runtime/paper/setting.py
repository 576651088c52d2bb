"""The paper's experiments at full size, or in miniature on the embedded data set.

In miniature the nets have an eighth of the width, crops have 64 pixels instead of 224, and every
scale of the paper is replaced by a smaller one. The steps between scales are smaller than the
paper's, because a digit has to fit into the crop. Digits are not mirrored in training: a mirrored
digit is not a digit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json
from prototxt_gen.spec import NetSpecification, builtin_spec, paper_test_scale, with_values
from runtime.job.plan import base_spec, stored_side
from runtime.job.prepare import DEMO
from runtime.paper.recipe import JITTER, Scale, Step, scale_name

_MINIATURE = {224: 64, 256: 72, 288: 80, 352: 80, 384: 88, 416: 96, 512: 104}
_ITERATIONS = {"from scratch": 2500, "from net A": 1500, "fine-tuned": 600}
_LEARNING_RATE = 0.015
_SHALLOW = {"init.first_std": 0.012, "solver.base_lr": 0.005}
"""The 5x5 kernels of B-shallow sum more inputs; at twice this rate the loss does not fall."""
FILE = "setting.json"


@dataclass(frozen=True)
class Setting:
    """`data` is "demo" or the folder of a data set in ILSVRC-2012's layout.

    `seed` is the seed of the embedded data set and is added to the seeds of all trainings.
    """

    data: str = DEMO
    seed: int = 0

    @property
    def demo(self) -> bool:
        """Whether the data is the embedded data set."""
        return self.data == DEMO

    @property
    def stored_side(self) -> int:
        """The short side of stored images, the largest that a recipe needs. Units: pixels."""
        return stored_side(self.demo, JITTER)

    def side(self, side: int) -> int:
        """Return the short side that is used for one of the paper's."""
        return _MINIATURE[side] if self.demo else side

    def sides(self, sides: tuple[int, ...]) -> tuple[int, ...]:
        """Return the short sides that are used for some of the paper's."""
        return tuple(map(self.side, sides))

    def train_scale(self, scale: Scale) -> Scale:
        """Return the training scale that is used for one of the paper's."""
        if isinstance(scale, tuple):
            return self.side(scale[0]), self.side(scale[1])
        return self.side(scale)

    def spec(self, step: Step) -> NetSpecification:
        """Return the net and the training of a step, without the values that depend on the data."""
        train = self.train_scale(step.scale)
        name = f"VGG-{step.net}-{scale_name(train)}"
        values: dict[str, Any] = {
            "name": f"{name}-demo" if self.demo else name,
            "data.train.options.short_side": train,
            "data.test.options.short_side": paper_test_scale(train),
            "solver.random_seed": 1 + self.seed,
        }
        if not self.demo:
            # The paper draws all weights that are not taken from net A from a normal distribution.
            values |= {"init.method": "gaussian", "solver.base_lr": 0.01 * step.rate}
            return with_values(builtin_spec(step.architecture), values)
        values |= {
            "solver.base_lr": _LEARNING_RATE * step.rate,
            "solver.max_iter": _ITERATIONS[step.kind],
            "solver.snapshot": _ITERATIONS[step.kind] // 2,
            "solver.test_interval": _ITERATIONS[step.kind] // 2,
        }
        if step.net == "B-shallow":
            values |= _SHALLOW
        return with_values(base_spec(step.architecture, demo=True), values)

    def words(self) -> list[str]:
        """Return the sentences of a report about the setting."""
        if not self.demo:
            return [f"Data: {self.data}. Nets, scales and schedules are the paper's."]
        sides = ", ".join(f"{here} for {paper}" for paper, here in _MINIATURE.items())
        jitter = self.train_scale(JITTER)
        return [
            "The embedded data set (handwritten digits over photographs, 10 classes); nets with an "
            "eighth of the paper's width, crops of 64 pixels for 224.",
            f"Short sides used for the paper's: {sides}; jitter is {jitter}.",
            "Dense application is coarse: its stride of 32 pixels is half of a crop, in the paper "
            "a seventh. Conclusions of sections 4.1, 4.2 and 4.4 are judged by crops.",
            f"Seed of the data and the trainings: {self.seed}.",
            "Images are not mirrored, in training or testing: a mirrored digit is not a digit.",
        ]

    def write(self, root: Path) -> None:
        """Record the setting in a run folder.

        Raises:
            DataError: the folder contains runs on other data.
        """
        if (root / FILE).exists():
            recorded = read_setting(root)
            if recorded != self:
                raise DataError(
                    f"{root}: contains runs on the data of {recorded}; expected {self}; choose "
                    "another folder with --out"
                )
            return
        content = {"data": self.data, "seed": self.seed}
        atomic_write_text(root / FILE, json.dumps(content, indent=2) + "\n", DataError)

    def __str__(self) -> str:
        return f"{self.data!r} with seed {self.seed}"


def read_setting(root: Path) -> Setting:
    """Read the setting of a run folder.

    Raises:
        DataError: the folder is not a run folder.
    """
    try:
        content = read_json(root / FILE)
        return Setting(str(content["data"]), int(content.get("seed", 0)))
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{root}: not a run folder: {FILE} cannot be read ({cause}); expected a folder that "
            "`verydeep recipe` or `verydeep paper --data` wrote; check the path"
        ) from cause
