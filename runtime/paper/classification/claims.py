"""The conclusions that the paper draws from its tables, compared with the measured errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.evaluate.protocol import BOTH, DENSE, MULTICROP
from runtime.paper import paired
from runtime.paper.classification.published import CENTRE, Row, TestedNet, rows
from runtime.paper.classification.tables import Result
from runtime.paper.paired import Comparison
from runtime.paper.recipe import JITTER, Scale

FOR, AGAINST, UNDECIDED, MISSING = "for", "against", "undecided", "not measured"


@dataclass(frozen=True)
class Claim:
    """The statement that one row's top-1 error is below another's.

    A control is a claim that the paper does not make; it separates two causes of a claim.
    """

    section: str
    sentence: str
    better: Row
    worse: Row
    control: bool = False


@dataclass(frozen=True)
class Verdict:
    """A claim with the comparison of its rows on the same images.

    `corrected` is the p-value corrected for the number of claims by Holm's method.
    """

    claim: Claim
    comparison: Comparison | None = None
    corrected: float | None = None

    @property
    def outcome(self) -> str:
        """Whether the difference decides for or against the claim at 95 % confidence."""
        if self.comparison is None:
            return MISSING
        if not self.comparison.decided:
            return UNDECIDED
        return FOR if self.comparison.difference > 0 else AGAINST

    @property
    def holds_corrected(self) -> bool:
        """Whether the claim is decided with the correction for the number of claims too."""
        return self.corrected is not None and self.corrected <= 1 - paired.CONFIDENCE

    def to_json(self) -> dict[str, Any]:
        """Return the claim, its rows and the comparison. Units: per cent."""
        measured = {} if self.comparison is None else paired.to_json(self.comparison)
        return {
            "section": self.claim.section,
            "claim": self.claim.sentence,
            "control": self.claim.control,
            "better": self.claim.better.name,
            "worse": self.claim.worse.name,
            "outcome": self.outcome,
            **measured,
            "p_value_corrected": self.corrected,
        }


def claims(miniature: bool = False) -> list[Claim]:
    """Return the conclusions of sections 4.1 to 4.4 as comparisons of rows, and the controls.

    In miniature, sections 4.1, 4.2 and 4.4 are judged by crops: a stride of 32 pixels is half of a
    miniature crop and a seventh of the paper's, so dense application measures the coarse grid.
    """
    single = {(r.nets[0].net, r.nets[0].train, r.kind): r for r in rows(3)}
    several = {(r.nets[0].net, r.nets[0].train): r for r in rows(4)}
    technique = {(r.nets[0].net, r.kind): r for r in rows(5)}
    fusion = {r.kind: r for r in rows(6) if not r.method}

    def judged(row: Row) -> Row:
        return central(row) if miniature else row

    def one(net: str, scale: Scale = 256) -> Row:
        return judged(single[net, scale, DENSE])

    statements = [Claim("4.1", "LRN does not improve on A", one("A"), one("A-LRN"))]
    for deep, shallow in (("B", "A"), ("C", "B"), ("D", "C")):
        statements.append(Claim("4.1", f"{deep} is better than {shallow}", one(deep), one(shallow)))
    small, large = single["B", 256, CENTRE], single["B-shallow", 256, CENTRE]
    statements.append(Claim("4.1", "B is better than the shallow net of 5x5 kernels", small, large))
    for net in ("C", "D", "E"):
        for fixed in (256, 384):
            text = f"{net}: jittered S is better than S = {fixed}"
            statements.append(Claim("4.1", text, one(net, JITTER), one(net, fixed)))
    for (net, train), row in several.items():
        text = f"{row.nets[0]}: several test scales are better than one"
        statements.append(Claim("4.2", text, judged(row), one(net, train)))
    fused = MULTICROP if miniature else DENSE
    for net in ("D", "E"):
        dense, crops, both = (technique[net, kind] for kind in (DENSE, MULTICROP, BOTH))
        statements.append(Claim("4.3", f"{net}: multi-crop is better than dense", crops, dense))
        statements.append(
            Claim("4.3", f"{net}: both together are better than multi-crop", both, crops)
        )
        text = f"D + E is better than {net} alone"
        statements.append(Claim("4.4", text, fusion[fused], technique[net, fused]))
    return statements


def controls() -> list[Claim]:
    """Return the comparisons with the runs of `recipe.CONTROLS`."""
    scale = 256

    def crop(net: str) -> Row:
        return Row(3, (), (TestedNet(net, scale, (scale,)),), CENTRE)

    deeper = [
        Claim("4.1", f"{net} is better than A trained as long (A2)", crop(net), crop("A2"), True)
        for net in ("B", "C", "D", "E")
    ]
    text = "B from random weights is better than the shallow net"
    return [*deeper, Claim("4.1", text, crop("B-scratch"), crop("B-shallow"), True)]


def central(row: Row) -> Row:
    """Return the row with centre crops in place of its evaluation, without published numbers."""
    return dataclasses.replace(row, numbers=(), kind=CENTRE)


def judge(statements: Sequence[Claim], results: Iterable[Result]) -> list[Verdict]:
    """Compare the rows of every claim, image by image."""
    by_row = {(result.row.nets, result.row.kind): result for result in results}
    compared = [_comparison(claim, by_row) for claim in statements]
    p_values = [one.p_value for one in compared if one is not None]
    corrected = iter(paired.holm(p_values))
    return [
        Verdict(claim, one, None if one is None else next(corrected))
        for claim, one in zip(statements, compared, strict=True)
    ]


def _comparison(claim: Claim, by_row: Mapping[Any, Result]) -> Comparison | None:
    wrong = []
    for row in (claim.better, claim.worse):
        result = by_row.get((row.nets, row.kind))
        if result is None or result.measured is None or result.measured.wrong is None:
            return None
        wrong.append(result.measured.wrong)
    return paired.compare(*wrong)
