"""The form in which the published numbers of all tables are held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from prototxt_gen.errors import ProtoError

TITLES = {
    3: "ConvNet performance at a single test scale",
    4: "ConvNet performance at multiple test scales",
    5: "ConvNet evaluation techniques comparison",
    6: "Multiple ConvNet fusion results",
    7: "Comparison with the state of the art in ILSVRC classification",
    8: "Localisation error of a central crop, given the class",
    9: "Top-5 localisation error of dense application with merged boxes",
    11: "Comparison with the state of the art on VOC and Caltech",
    12: "Comparison with the state of the art on VOC-2012 actions",
}


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: its published numbers, in the order of the class's `columns`.

    Units: per cent. Trailing numbers may be omitted; a number is None if the paper has none.
    """

    columns: ClassVar[tuple[str, ...]] = ()

    table: int
    numbers: tuple[float | None, ...]

    @property
    def published(self) -> dict[str, float | None]:
        """The published numbers by column."""
        missing = len(self.columns) - len(self.numbers)
        return dict(zip(self.columns, (*self.numbers, *[None] * missing)))


def check_table(table: int, tables: Sequence[int], others: str) -> None:
    """Check that a table is one of `tables`.

    Raises:
        ProtoError: it is not; the message names the commands that print the `others`.
    """
    if table not in tables:
        raise ProtoError(
            f"table: expected one of {', '.join(map(str, tables))}, got {table}; {others}"
        )
