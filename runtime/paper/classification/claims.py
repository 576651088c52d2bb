"""The conclusions that the paper draws from its tables, compared with the measured errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.evaluate.protocol import BOTH, DENSE, MULTICROP
from runtime.paper.classification.published import CENTRE, Row, rows
from runtime.paper.classification.tables import Result
from runtime.paper.recipe import JITTER, Scale

AGREES, DISAGREES, UNDECIDED, MISSING = "agrees", "disagrees", "within the noise", "not measured"


@dataclass(frozen=True)
class Claim:
    """The statement that one row's top-1 error is below another's."""

    section: str
    sentence: str
    better: Row
    worse: Row


@dataclass(frozen=True)
class Verdict:
    """A claim with the two measured errors.

    `noise` is the standard deviation of their difference if the two were measured on different
    images; on the same images it is smaller.

    Units: per cent.
    """

    claim: Claim
    outcome: str
    better: float | None = None
    worse: float | None = None
    noise: float | None = None


def claims() -> list[Claim]:
    """Return the conclusions of sections 4.1 to 4.4 as comparisons of rows."""
    single = {(r.nets[0].net, r.nets[0].train, r.kind): r for r in rows(3)}
    several = {(r.nets[0].net, r.nets[0].train): r for r in rows(4)}
    technique = {(r.nets[0].net, r.kind): r for r in rows(5)}
    fusion = {r.kind: r for r in rows(6) if not r.method}

    def one(net: str, scale: Scale = 256) -> Row:
        return single[net, scale, DENSE]

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
        statements.append(Claim("4.2", text, row, one(net, train)))
    for net in ("D", "E"):
        dense, crops, both = (technique[net, kind] for kind in (DENSE, MULTICROP, BOTH))
        statements.append(Claim("4.3", f"{net}: multi-crop is better than dense", crops, dense))
        statements.append(
            Claim("4.3", f"{net}: both together are better than multi-crop", both, crops)
        )
        statements.append(Claim("4.4", f"D + E is better than {net} alone", fusion[DENSE], dense))
    return statements


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Compare every claim with the measured rows."""
    by_row = {result.row: result for result in results}
    return [_verdict(claim, by_row) for claim in claims()]


def _verdict(claim: Claim, by_row: Mapping[Row, Result]) -> Verdict:
    pair = [by_row.get(row) for row in (claim.better, claim.worse)]
    measured = [result.measured for result in pair if result is not None]
    first, second = (measured + [None, None])[:2]
    if first is None or second is None:
        return Verdict(claim, MISSING)
    variance = sum(m.top1 * (1 - m.top1) / m.images for m in (first, second))
    noise, gap = math.sqrt(variance), second.top1 - first.top1
    outcome = UNDECIDED if abs(gap) <= noise else AGREES if gap > 0 else DISAGREES
    return Verdict(claim, outcome, 100 * first.top1, 100 * second.top1, 100 * noise)
