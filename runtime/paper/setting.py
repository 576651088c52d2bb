"""The paper's experiments at full size, or in miniature on the embedded data set.

In miniature the nets are an eighth as wide, crops have 64 pixels for 224, and every scale of the
paper has one that stands for it. The steps between scales are smaller than the paper's: a digit
has to fit into the crop. Nothing is mirrored, in training or in testing: a mirrored digit is none.
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
from runtime.job.plan import base_spec
from runtime.job.prepare import DEMO
from runtime.paper.published import JITTER, Scale, scale_name
from runtime.paper.recipe import Step

_MINIATURE = {224: 64, 256: 72, 288: 80, 352: 80, 384: 88, 416: 96, 512: 104}
DEMO_ITERATIONS = {"from scratch": 2500, "from net A": 1500, "fine-tuned": 600}
DEMO_LR = 0.015
_SHALLOW = {"init.first_std": 0.012, "solver.base_lr": 0.005}
"""The 5x5 kernels of B-shallow add up more inputs; at twice this rate it never leaves its start."""
FULL_STORED_SIDE = 512
DEMO_STORED_SIDE = 112
FILE = "setting.json"


@dataclass(frozen=True)
class Setting:
    """`data` is "demo" or the folder of a data set in ILSVRC-2012's layout."""

    data: str = DEMO

    @property
    def demo(self) -> bool:
        return self.data == DEMO

    @property
    def stored_side(self) -> int:
        """The short side images are stored at: no recipe needs more."""
        return DEMO_STORED_SIDE if self.demo else FULL_STORED_SIDE

    def side(self, side: int) -> int:
        """What stands for one of the paper's short sides."""
        return _MINIATURE[side] if self.demo else side

    def train_scale(self, scale: Scale) -> Scale:
        """What stands for one of the paper's training scales."""
        if isinstance(scale, tuple):
            return self.side(scale[0]), self.side(scale[1])
        return self.side(scale)

    def spec(self, step: Step) -> NetSpecification:
        """How a step's net is trained, before the data is known."""
        train = self.train_scale(step.scale)
        name = f"VGG-{step.net}-{scale_name(train)}"
        values: dict[str, Any] = {
            "name": f"{name}-demo" if self.demo else name,
            "data.train.options.short_side": train,
            "data.test.options.short_side": paper_test_scale(train),
        }
        if not self.demo:
            # The paper draws from a normal distribution whatever it does not take from net A.
            values |= {"init.method": "gaussian", "solver.base_lr": 0.01 * step.rate}
            return with_values(builtin_spec(step.net), values)
        values |= {
            "solver.base_lr": DEMO_LR * step.rate,
            "solver.max_iter": DEMO_ITERATIONS[step.kind],
            "solver.snapshot": DEMO_ITERATIONS[step.kind] // 2,
            "solver.test_interval": 200,
        }
        if step.net == "B-shallow":
            values |= _SHALLOW
        return with_values(base_spec(step.net, demo=True), values)

    def words(self) -> list[str]:
        """What a report says of the setting."""
        if not self.demo:
            return [f"Data: {self.data}. Nets, scales and schedules are the paper's."]
        sides = ", ".join(f"{paper} is {here}" for paper, here in _MINIATURE.items())
        jitter = self.train_scale(JITTER)
        return [
            "The embedded data set (handwritten digits over photographs, 10 classes); nets an "
            "eighth as wide as the paper's, crops of 64 pixels for 224.",
            f"The paper's short sides and what stands for them: {sides}; jitter is {jitter}.",
            "No image is mirrored, in training or testing: a mirrored digit is none.",
        ]

    def write(self, root: Path) -> None:
        """Note the setting in a run folder.

        Raises:
            DataError: the folder belongs to other data.
        """
        if (root / FILE).exists():
            found = read_setting(root)
            if found != self:
                raise DataError(
                    f"{root}: holds runs on the data of {found.data!r}; expected {self.data!r}; "
                    "choose another folder with --out"
                )
            return
        atomic_write_text(root / FILE, json.dumps({"data": self.data}, indent=2) + "\n", DataError)


def read_setting(root: Path) -> Setting:
    """The setting of a run folder.

    Raises:
        DataError: it is none.
    """
    try:
        data = read_json(root / FILE)["data"]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{root}: no run folder: {FILE} cannot be read ({cause}); expected a folder that "
            "`verydeep recipe` or `verydeep paper --data` wrote; check the path"
        ) from cause
    return Setting(str(data))
