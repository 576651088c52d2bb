"""Tables 8 and 9 of the paper as data: errors in per cent, of the ILSVRC-2012 validation set."""

from __future__ import annotations

from dataclasses import dataclass

from prototxt_gen.errors import ProtoError
from prototxt_gen.localization import ALL, FC, FINE_TUNINGS, PER_CLASS, REGRESSIONS, SINGLE_CLASS
from runtime.paper.published import run_name

TABLES = (8, 9)
TITLES = {
    8: "Localisation error of a central crop, the class being given",
    9: "Top-5 localisation error, densely, boxes merged",
}
SCALES = (256, 384)
WORDS = {
    PER_CLASS: "a box for each class (PCR)",
    SINGLE_CLASS: "one box for all classes (SCR)",
    ALL: "all layers",
    FC: "1st and 2nd FC",
}


@dataclass(frozen=True)
class BoxRun:
    """One training of boxes, in the paper's scales."""

    net: str = "D"
    scale: int = 384
    regression: str = PER_CLASS
    fine_tune: str = ALL

    def __post_init__(self) -> None:
        for what, value, known in (
            ("--scale", self.scale, SCALES),
            ("--regression", self.regression, REGRESSIONS),
            ("--fine-tune", self.fine_tune, FINE_TUNINGS),
        ):
            if value not in known:
                raise ProtoError(
                    f"{what}: expected one of {', '.join(map(str, known))}, got {value}; the "
                    "paper trains no other localisation nets"
                )

    @property
    def name(self) -> str:
        """`D-384-pcr-all`."""
        return f"{self.classifier}-{self.regression}-{self.fine_tune}"

    @property
    def classifier(self) -> str:
        """The name of the run whose weights it starts from."""
        return run_name(self.net, self.scale)

    def describe(self) -> str:
        """The run in words."""
        return (
            f"{self.name}: {WORDS[self.regression]}, fine-tuning {WORDS[self.fine_tune]}, "
            f"from the classification net {self.classifier}"
        )


@dataclass(frozen=True)
class BoxRow:
    """A row of a table: runs with their test scales, and the paper's errors."""

    table: int
    members: tuple[tuple[BoxRun, tuple[int, ...]], ...]
    val: float | None
    test: float | None = None

    @property
    def name(self) -> str:
        """What tells the row from the others of its table."""
        if self.table == 8:
            run = self.members[0][0]
            return f"{WORDS[run.fine_tune]}, {run.regression.upper()}"
        return " + ".join(f"{run.scale}/{','.join(map(str, tests))}" for run, tests in self.members)


def rows(table: int, net: str = "D") -> tuple[BoxRow, ...]:
    """The rows of a table, in the paper's order, for its net D or another.

    Table 8 ends with a row that the paper does not have: all layers with one box.

    Raises:
        ProtoError: no such table of localisation.
    """
    if table not in TABLES:
        raise ProtoError(
            f"table: expected one of {', '.join(map(str, TABLES))}, got {table}; the other tables "
            "are printed by `verydeep paper` and `verydeep summary --paper`"
        )
    if table == 8:
        settings = (
            (FC, SINGLE_CLASS, 36.4),
            (FC, PER_CLASS, 34.3),
            (ALL, PER_CLASS, 33.1),
            (ALL, SINGLE_CLASS, None),
        )
        return tuple(
            BoxRow(8, ((BoxRun(net, 384, regression, fine_tune), (384,)),), error)
            for fine_tune, regression, error in settings
        )
    small, large = BoxRun(net, 256), BoxRun(net, 384)
    return (
        BoxRow(9, ((small, (256,)),), 29.5),
        BoxRow(9, ((large, (384,)),), 28.2, 26.7),
        BoxRow(9, ((large, (352, 384)),), 27.5),
        BoxRow(9, ((small, (256,)), (large, (352, 384))), 26.9, 25.3),
    )


def runs(net: str = "D") -> tuple[BoxRun, ...]:
    """All runs behind both tables, each once."""
    found = [run for table in TABLES for row in rows(table, net) for run, _ in row.members]
    return tuple(dict.fromkeys(found))
