"""The result of copying weights by name: layers that were copied, converted and left out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Shapes = tuple[tuple[int, ...], ...]


def count_text(count: int) -> str:
    """A rounded number of parameters, such as 138.4 M."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)


def shape_text(shapes: Sequence[Sequence[int]]) -> str:
    """Shapes of blobs in a table: `64x3x3x3, 64`."""
    return ", ".join("x".join(map(str, shape)) or "1" for shape in shapes)


@dataclass(frozen=True)
class CopyReport:
    """Layers by result, each with the shapes of its weight blobs.

    `missing` layers are in the net only and keep their weights; `unused` are in the file only.
    """

    path: str
    loaded: Mapping[str, Shapes]
    missing: Mapping[str, Shapes]
    unused: Mapping[str, Shapes]
    parameters: int = 0
    """Numbers copied."""
    converted: Mapping[str, str] = field(default_factory=dict)
    """The convolution of the net for each InnerProduct layer of the file that was converted."""

    @property
    def complete(self) -> bool:
        """Nothing is missing and nothing unused."""
        return not self.missing and not self.unused

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.path}: {len(self.loaded)} layers loaded ({count_text(self.parameters)} "
            f"parameters), {len(self.missing)} missing, {len(self.unused)} unused"
        )

    def conversion(self) -> str:
        """The converted layers in one line; empty if there are none."""
        pairs = (
            name if name == target else f"{name} as {target}"
            for name, target in self.converted.items()
        )
        text = f"{self.path}: InnerProduct weights converted to convolutions: {', '.join(pairs)}"
        return text if self.converted else ""

    def table(self) -> str:
        """The summary and a line for each layer, missing and unused layers last."""
        rows = [("loaded", name, shape_text(shapes), "") for name, shapes in self.loaded.items()]
        for name, shapes in self.missing.items():
            rows.append(("missing", name, shape_text(shapes), self._hint(name, shapes)))
        for name, shapes in self.unused.items():
            rows.append(("unused", name, shape_text(shapes), "not in the net"))
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
        lines = [self.summary()]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths)]
            lines.append("  ".join(["", *cells, row[3]]).rstrip())
        return "\n".join(lines)

    def _hint(self, name: str, shapes: Shapes) -> str:
        alike = [other for other, theirs in self.unused.items() if theirs == shapes]
        near = difflib.get_close_matches(name, alike, n=1, cutoff=0.4)
        if near:
            return f"keeps its weights; the file's '{near[0]}' has the same shapes"
        return "keeps its weights"
