"""Tables 3 to 7 of the paper: errors on the ILSVRC-2012 validation and test sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runtime.evaluate.protocol import BOTH, DENSE, MULTICROP
from runtime.paper.published import PaperRow, check_table
from runtime.paper.recipe import JITTER, Scale, run_name

CENTRE = "centre crop"
TABLES = (3, 4, 5, 6, 7)
_MULTI = (256, 384, 512)


@dataclass(frozen=True)
class TestedNet:
    """A net trained at a scale S and tested at scales Q. Units: pixels of the paper."""

    __test__ = False

    net: str
    train: Scale
    test: tuple[int, ...]

    @property
    def run(self) -> str:
        """The name of the training run."""
        return run_name(self.net, self.train)

    def __str__(self) -> str:
        train = (
            f"[{self.train[0]};{self.train[1]}]" if isinstance(self.train, tuple) else self.train
        )
        return f"{self.net}/{train}/{','.join(map(str, self.test))}"


@dataclass(frozen=True)
class Row(PaperRow):
    """A row of a table; a row without nets is the result of other authors."""

    columns: ClassVar[tuple[str, ...]] = ("top1", "top5", "test_top5")

    nets: tuple[TestedNet, ...]
    kind: str
    method: str = ""

    @property
    def label(self) -> str:
        """The nets as the paper writes them, or the name of the method."""
        return self.method or " + ".join(map(str, self.nets))

    @property
    def name(self) -> str:
        """The label with the kind of evaluation, unique in a table."""
        return f"{self.label} ({self.kind})"


def rows(table: int) -> tuple[Row, ...]:
    """Return the rows of a table, in the paper's order.

    Raises:
        ProtoError: no table of classification results has that number.
    """
    check_table(table, TABLES, "Tables 1 and 2 are printed by `verydeep summary --paper`")
    return _ROWS[table]


def _single(net: str, train: Scale, top1: float, top5: float) -> Row:
    test = (sum(train) // 2,) if isinstance(train, tuple) else (train,)
    return Row(3, (top1, top5), (TestedNet(net, train, test),), DENSE)


def _several(net: str, train: Scale, top1: float, top5: float) -> Row:
    return Row(4, (top1, top5), (TestedNet(net, train, _tests(train)),), DENSE)


def _tests(train: Scale) -> tuple[int, ...]:
    return _MULTI if isinstance(train, tuple) else (train - 32, train, train + 32)


def _technique(net: str, kind: str, top1: float, top5: float) -> Row:
    return Row(5, (top1, top5), (TestedNet(net, JITTER, _MULTI),), kind)


_TWO = tuple(TestedNet(net, JITTER, _MULTI) for net in ("D", "E"))
_SEVEN = tuple(
    TestedNet(net, train, _tests(train))
    for net, train in (
        *(("D", 256), ("D", 384), ("D", JITTER), ("C", 256), ("C", 384)),
        *(("E", 256), ("E", 384)),
    )
)


def _others(method: str, top1: float | None, top5: float | None, test: float | None) -> Row:
    return Row(7, (top1, top5, test), (), "as published", method)


_ROWS: dict[int, tuple[Row, ...]] = {
    3: (
        _single("A", 256, 29.6, 10.4),
        _single("A-LRN", 256, 29.7, 10.5),
        _single("B", 256, 28.7, 9.9),
        _single("C", 256, 28.1, 9.4),
        _single("C", 384, 28.1, 9.3),
        _single("C", JITTER, 27.3, 8.8),
        _single("D", 256, 27.0, 8.8),
        _single("D", 384, 26.8, 8.7),
        _single("D", JITTER, 25.6, 8.1),
        _single("E", 256, 27.3, 9.0),
        _single("E", 384, 26.9, 8.7),
        _single("E", JITTER, 25.5, 8.0),
        # Section 4.1 compares these two on a centre crop and gives only the difference, 7 %.
        Row(3, (), (TestedNet("B", 256, (256,)),), CENTRE),
        Row(3, (), (TestedNet("B-shallow", 256, (256,)),), CENTRE),
    ),
    4: (
        _several("B", 256, 28.2, 9.6),
        _several("C", 256, 27.7, 9.2),
        _several("C", 384, 27.8, 9.2),
        _several("C", JITTER, 26.3, 8.2),
        _several("D", 256, 26.6, 8.6),
        _several("D", 384, 26.5, 8.6),
        _several("D", JITTER, 24.8, 7.5),
        _several("E", 256, 26.9, 8.7),
        _several("E", 384, 26.7, 8.6),
        _several("E", JITTER, 24.8, 7.5),
    ),
    5: (
        _technique("D", DENSE, 24.8, 7.5),
        _technique("D", MULTICROP, 24.6, 7.5),
        _technique("D", BOTH, 24.4, 7.2),
        _technique("E", DENSE, 24.8, 7.5),
        _technique("E", MULTICROP, 24.6, 7.4),
        _technique("E", BOTH, 24.4, 7.1),
    ),
    6: (
        Row(6, (24.7, 7.5, 7.3), _SEVEN, DENSE, "ILSVRC submission, 7 nets"),
        Row(6, (24.0, 7.1, 7.0), _TWO, DENSE),
        Row(6, (23.9, 7.2), _TWO, MULTICROP),
        Row(6, (23.7, 6.8, 6.8), _TWO, BOTH),
    ),
    7: (
        Row(7, (23.7, 6.8, 6.8), _TWO, BOTH, "VGG, 2 nets"),
        Row(7, (24.4, 7.1, 7.0), _TWO[1:], BOTH, "VGG, 1 net"),
        Row(7, (24.7, 7.5, 7.3), _SEVEN, DENSE, "VGG, ILSVRC submission, 7 nets"),
        _others("GoogLeNet, 1 net (Szegedy et al., 2014)", None, 7.9, 7.9),
        _others("GoogLeNet, 7 nets (Szegedy et al., 2014)", None, 6.7, 6.7),
        _others("MSRA, 11 nets (He et al., 2014)", None, None, 8.1),
        _others("MSRA, 1 net (He et al., 2014)", 27.9, 9.1, 9.1),
        _others("Clarifai, several nets (Russakovsky et al., 2014)", None, None, 11.7),
        _others("Clarifai, 1 net (Russakovsky et al., 2014)", None, None, 12.5),
        _others("Zeiler & Fergus, 6 nets (2013)", 36.0, 14.7, 14.8),
        _others("Zeiler & Fergus, 1 net (2013)", 37.5, 16.0, 16.1),
        _others("OverFeat, 7 nets (Sermanet et al., 2014)", 34.0, 13.2, 13.6),
        _others("OverFeat, 1 net (Sermanet et al., 2014)", 35.7, 14.2, None),
        _others("Krizhevsky et al., 5 nets (2012)", 38.1, 16.4, 16.4),
        _others("Krizhevsky et al., 1 net (2012)", 40.7, 18.2, None),
    ),
}
