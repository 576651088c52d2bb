"""Tables 8 and 9 of the paper: localisation errors on ILSVRC-2012 images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prototxt_gen.errors import ProtoError
from prototxt_gen.localisation import ALL, FC, FINE_TUNINGS, PER_CLASS, REGRESSIONS, SINGLE_CLASS
from runtime.paper.published import PaperRow, check_table
from runtime.paper.recipe import run_name

TABLES = (8, 9)
SCALES = (256, 384)
WORDS = {
    PER_CLASS: "a box for each class (PCR)",
    SINGLE_CLASS: "one box for all classes (SCR)",
    ALL: "all layers",
    FC: "1st and 2nd FC",
}


@dataclass(frozen=True)
class BoxRun:
    """One training of boxes. Units: `scale` in pixels of the paper.

    Raises:
        ProtoError: the paper has no such training.
    """

    net: str = "D"
    scale: int = 384
    regression: str = PER_CLASS
    fine_tune: str = ALL

    def __post_init__(self) -> None:
        for flag, value, choices in (
            ("--scale", self.scale, SCALES),
            ("--regression", self.regression, REGRESSIONS),
            ("--fine-tune", self.fine_tune, FINE_TUNINGS),
        ):
            if value not in choices:
                raise ProtoError(
                    f"{flag}: expected one of {', '.join(map(str, choices))}, got {value}; the "
                    "paper trains no other localisation nets"
                )

    @property
    def name(self) -> str:
        """The name of the run, such as `D-384-pcr-all`."""
        return f"{self.classifier}-{self.regression}-{self.fine_tune}"

    @property
    def classifier(self) -> str:
        """The name of the classification run that provides the initial weights."""
        return run_name(self.net, self.scale)

    def describe(self) -> str:
        """Return the run in words."""
        return (
            f"{self.name}: {WORDS[self.regression]}, fine-tuning {WORDS[self.fine_tune]}, "
            f"from the classification net {self.classifier}"
        )


@dataclass(frozen=True)
class BoxRow(PaperRow):
    """A row of a table; `members` are runs with their test scales."""

    columns: ClassVar[tuple[str, ...]] = ("val", "test")

    members: tuple[tuple[BoxRun, tuple[int, ...]], ...]

    @property
    def name(self) -> str:
        """A name that is unique in the table."""
        if self.table == 8:
            run = self.members[0][0]
            return f"{WORDS[run.fine_tune]}, {run.regression.upper()}"
        return " + ".join(f"{run.scale}/{','.join(map(str, tests))}" for run, tests in self.members)


def rows(table: int, net: str = "D") -> tuple[BoxRow, ...]:
    """Return the rows of a table, in the paper's order, for its net D or another.

    The last row of Table 8 is not in the paper: all layers with one box.

    Raises:
        ProtoError: no table of localisation results has that number.
    """
    check_table(
        table,
        TABLES,
        "the other tables are printed by `verydeep paper` and `verydeep summary --paper`",
    )
    if table == 8:
        settings = (
            (FC, SINGLE_CLASS, 36.4),
            (FC, PER_CLASS, 34.3),
            (ALL, PER_CLASS, 33.1),
            (ALL, SINGLE_CLASS, None),
        )
        return tuple(
            BoxRow(8, (error,), ((BoxRun(net, 384, regression, fine_tune), (384,)),))
            for fine_tune, regression, error in settings
        )
    small, large = BoxRun(net, 256), BoxRun(net, 384)
    return (
        BoxRow(9, (29.5,), ((small, (256,)),)),
        BoxRow(9, (28.2, 26.7), ((large, (384,)),)),
        BoxRow(9, (27.5,), ((large, (352, 384)),)),
        BoxRow(9, (26.9, 25.3), ((small, (256,)), (large, (352, 384)))),
    )


def runs(net: str = "D") -> tuple[BoxRun, ...]:
    """Return the runs of both tables, each once."""
    every = [run for table in TABLES for row in rows(table, net) for run, _ in row.members]
    return tuple(dict.fromkeys(every))
