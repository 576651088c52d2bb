"""Evaluation protocols: dense application, crops, or both, at given scales.

Paper: sections 3.2 and 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prototxt_gen.errors import ProtoError, UsageError

DENSE, MULTICROP, BOTH = "dense", "multicrop", "both"
KINDS = (DENSE, MULTICROP, BOTH)
BEFORE, AFTER = "before", "after"
GRID = 5
"""The paper's grid is 5x5: 50 crops per scale with flips."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """Everything that determines an image's posterior, except the net and the image.

    Units: `scales` are short sides Q in pixels.
    """

    scales: tuple[int, ...]
    kind: str = DENSE
    average: str = BEFORE
    """Whether the class score map is averaged over space before or after the softmax."""
    grid: int = GRID
    flip: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ProtoError(f"protocol: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.average not in (BEFORE, AFTER):
            raise ProtoError(f"average: expected {BEFORE} or {AFTER}, got {self.average!r}")
        check_scales(self.scales)
        if self.grid < 1:
            raise ProtoError(f"grid: expected at least 1 crop per side, got {self.grid}")

    def parts(self) -> list[dict[str, Any]]:
        """Return the evaluations at single scales, whose posteriors are averaged equally."""
        parts: list[dict[str, Any]] = []
        if self.kind in (DENSE, BOTH):
            parts += [
                {"kind": DENSE, "scale": q, "average": self.average, "flip": self.flip}
                for q in self.scales
            ]
        if self.kind in (MULTICROP, BOTH):
            parts += [
                {"kind": MULTICROP, "scale": q, "grid": self.grid, "flip": self.flip}
                for q in self.scales
            ]
        return parts

    def describe(self) -> str:
        """Return the protocol in words."""
        words = []
        flips = "averaged with the flip" if self.flip else "without flips"
        if self.kind in (DENSE, BOTH):
            words.append(f"dense, scores averaged over space {self.average} the softmax, {flips}")
        if self.kind in (MULTICROP, BOTH):
            crops = self.grid**2 * (2 if self.flip else 1)
            words.append(
                f"{crops} crop{'s' * (crops > 1)} per scale ({self.grid}x{self.grid} grid)"
            )
        scales = ", ".join(map(str, self.scales))
        return f"{' and '.join(words)}; Q = {scales}; posteriors averaged"


def check_scales(scales: tuple[int, ...]) -> None:
    """Check test scales.

    Raises:
        ProtoError: there are none, one is not positive, or one is repeated.
    """
    if not scales or min(scales) < 1 or len(set(scales)) < len(scales):
        raise ProtoError(
            "scales: expected short sides of 1 pixel or more, each once, got "
            f"{list(scales)}; write for example 256,384,512"
        )


def centre_crop(scales: tuple[int, ...]) -> EvaluationProtocol:
    """Return the protocol of a TEST net: one central crop per scale, without flips."""
    return EvaluationProtocol(scales, MULTICROP, grid=1, flip=False)


def parse_scales(words: str, flag: str = "--scales") -> tuple[int, ...]:
    """Parse `256,384,512`.

    Raises:
        UsageError: the text is not a list of integers.
    """
    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError:
        raise UsageError(
            f"{flag}: expected integers separated by commas, got {words!r}; write for example "
            "256,384,512"
        ) from None
