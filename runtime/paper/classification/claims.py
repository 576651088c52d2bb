"""What the paper concludes from its tables, held against what was measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.evaluate.protocol import BOTH, DENSE, MULTICROP
from runtime.paper.classification.tables import Result
from runtime.paper.published import CENTRE, JITTER, Row, Scale, rows

AGREES, DISAGREES, UNDECIDED, MISSING = "agrees", "disagrees", "within the noise", "not measured"


@dataclass(frozen=True)
class Claim:
    """That one row's top-1 error is below another's."""

    section: str
    sentence: str
    better: Row
    worse: Row


@dataclass(frozen=True)
class Verdict:
    """A claim with the two measured errors, in per cent.

    `noise` is one standard deviation of the difference, were the two measured on images of their
    own; on the same images it is less.
    """

    claim: Claim
    outcome: str
    better: float | None = None
    worse: float | None = None
    noise: float | None = None


def claims() -> list[Claim]:
    """The paper's conclusions of sections 4.1 to 4.4 as comparisons of rows."""
    single = {(r.nets[0].net, r.nets[0].train, r.kind): r for r in rows(3)}
    several = {(r.nets[0].net, r.nets[0].train): r for r in rows(4)}
    technique = {(r.nets[0].net, r.kind): r for r in rows(5)}
    fusion = {r.kind: r for r in rows(6) if not r.method}

    def one(net: str, scale: Scale = 256) -> Row:
        return single[net, scale, DENSE]

    found = [Claim("4.1", "LRN does not improve on A", one("A"), one("A-LRN"))]
    for deep, shallow in (("B", "A"), ("C", "B"), ("D", "C")):
        found.append(Claim("4.1", f"{deep} is better than {shallow}", one(deep), one(shallow)))
    small, large = single["B", 256, CENTRE], single["B-shallow", 256, CENTRE]
    found.append(Claim("4.1", "B is better than the shallow net of 5x5 kernels", small, large))
    for net in ("C", "D", "E"):
        for fixed in (256, 384):
            text = f"{net}: jittered S is better than S = {fixed}"
            found.append(Claim("4.1", text, one(net, JITTER), one(net, fixed)))
    for (net, train), row in several.items():
        text = f"{row.nets[0]}: several test scales are better than one"
        found.append(Claim("4.2", text, row, one(net, train)))
    for net in ("D", "E"):
        dense, crops, both = (technique[net, kind] for kind in (DENSE, MULTICROP, BOTH))
        found.append(Claim("4.3", f"{net}: multi-crop is better than dense", crops, dense))
        found.append(Claim("4.3", f"{net}: both together are better than multi-crop", both, crops))
        found.append(Claim("4.4", f"D + E is better than {net} alone", fusion[DENSE], dense))
    return found


def judge(results: Iterable[Result]) -> list[Verdict]:
    """Every claim held against the rows that were measured."""
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
