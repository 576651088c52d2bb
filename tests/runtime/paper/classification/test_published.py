"""The published numbers, the recipes, and the conclusions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from prototxt_gen.errors import ProtoError
from runtime.cli.main import main
from runtime.evaluate.evaluation import Measured
from runtime.evaluate.protocol import DENSE
from runtime.paper.classification.claims import (
    AGAINST,
    FOR,
    MISSING,
    UNDECIDED,
    claims,
    controls,
    judge,
)
from runtime.paper.classification.experiment import steps_for_rows
from runtime.paper.classification.published import TABLES, Row, rows
from runtime.paper.classification.report import cells, row_title, table_json, text_table
from runtime.paper.classification.tables import Result
from runtime.paper.recipe import JITTER, parse_scale, steps_to
from runtime.paper.report import markdown_table
from runtime.paper.setting import Setting


def figures(table: int) -> dict[str, tuple[float | None, float | None]]:
    return {row.name: row.numbers[:2] for row in rows(table)}


def test_tables_have_the_papers_rows() -> None:
    assert [len(rows(table)) for table in TABLES] == [14, 10, 6, 4, 15]
    assert figures(3)["D/[256;512]/384 (dense)"] == (25.6, 8.1)
    assert figures(3)["A-LRN/256/256 (dense)"] == (29.7, 10.5)
    assert figures(4)["C/384/352,384,416 (dense)"] == (27.8, 9.2)
    assert figures(5)["E/[256;512]/256,384,512 (both)"] == (24.4, 7.1)
    two = "D/[256;512]/256,384,512 + E/[256;512]/256,384,512 (both)"
    assert figures(6)[two] == (23.7, 6.8)
    assert len(rows(6)[0].nets) == 7
    assert figures(7)["Krizhevsky et al., 1 net (2012) (as published)"] == (40.7, 18.2)
    names = [row.name for table in TABLES for row in rows(table)]
    assert len({(table, row.name) for table in TABLES for row in rows(table)}) == len(names)


def test_published_errors_agree_with_the_conclusions() -> None:
    """Detects typing errors: all conclusions follow from the published numbers."""
    held = []
    for claim in claims():
        better, worse = claim.better.published["top1"], claim.worse.published["top1"]
        if better is not None and worse is not None:
            held.append(better < worse)
    assert len(held) == len(claims()) - 1
    assert all(held)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(ProtoError, match="table: expected one of 3, 4, 5, 6, 7, got 8"):
        rows(8)


def test_recipes_follow_section_3_1() -> None:
    steps = steps_to("D", JITTER)
    assert [step.name for step in steps] == ["A-256", "D-256", "D-384", "D-256-512"]
    assert [step.start for step in steps] == [None, "A-256", "D-256", "D-384"]
    assert [step.rate for step in steps] == [1.0, 1.0, 0.1, 0.1]
    assert steps[1].layers == ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")
    assert steps[2].layers == steps[3].layers == ()
    assert [step.name for step in steps_to("A-LRN", 256)] == ["A-LRN-256"]
    assert [step.name for step in steps_to("A", 384)] == ["A-256", "A-384"]


def test_the_tables_need_thirteen_runs_each_after_what_it_starts_from() -> None:
    steps = steps_for_rows(row for table in TABLES for row in rows(table))
    names = [step.name for step in steps]
    assert len(names) == len(set(names)) == 13
    for place, step in enumerate(steps):
        assert step.start is None or step.start in names[:place]


def test_full_size_runs_are_the_papers() -> None:
    setting = Setting("/data/ilsvrc12")
    first, deep, fixed, jitter = (setting.spec(step) for step in steps_to("D", JITTER))
    assert [spec.solver.base_lr for spec in (first, deep, fixed, jitter)] == pytest.approx(
        [1e-2, 1e-2, 1e-3, 1e-3]
    )
    for spec, scale, q in (
        (first, 256, 256),
        (deep, 256, 256),
        (fixed, 384, 384),
        (jitter, JITTER, 384),
    ):
        assert spec.data.train.options.short_side == scale
        assert spec.data.test.options.short_side == q
        assert spec.init.method == "gaussian"
        assert (spec.solver.lr_policy, spec.solver.max_iter) == ("plateau", 370_000)
        assert (spec.data.train.batch_size, spec.schedule.max_drops) == (256, 3)
        assert spec.data.train.mirror
    assert not Setting().spec(steps_to("D", JITTER)[0]).data.train.mirror


def test_scales_are_those_of_the_paper() -> None:
    assert [parse_scale(word) for word in ("256", "384", "256-512")] == [256, 384, JITTER]
    with pytest.raises(ProtoError, match="the paper trains at 256, 384, 256-512"):
        parse_scale("512")


def test_a_plan_is_printed_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--net", "E", "--scales", "384", "--plan"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "A-256: from random weights"
    assert shown[1].startswith("E-256: from conv1_1, conv2_1, ")
    assert shown[2] == "E-384: from all layers of E-256, a tenth of the rate"


def measured(top1: float) -> Measured:
    return Measured(top1, top1 / 2, 1000, "val", ({"net": "n"},), 0.0)


def results_of(row: Row, wrong: int | None, images: int = 1000, first: int = 0) -> Result:
    """A row measured on `images` images, of which `wrong` from number `first` on are wrong."""
    if wrong is None:
        return Result(row)
    flags = np.zeros(images, np.bool_)
    flags[first : first + wrong] = True
    error = wrong / images
    return Result(row, Measured(error, error, images, "val", (), 0.0, wrong=flags))


@pytest.mark.parametrize(
    ("better", "worse", "outcome"),
    [
        (100, 120, FOR),
        (120, 100, AGAINST),
        (100, 105, UNDECIDED),
        (100, 106, FOR),
        (100, 100, UNDECIDED),
        (100, None, MISSING),
    ],
)
def test_conclusions_are_judged_image_by_image(
    better: int, worse: int | None, outcome: str
) -> None:
    """Six images that only one of two nets gets wrong are significant, five are not."""
    claim = claims()[0]
    assert claim.sentence == "LRN does not improve on A"
    verdict = judge([claim], [results_of(claim.better, better), results_of(claim.worse, worse)])[0]
    assert verdict.outcome == outcome
    if worse is not None and verdict.comparison is not None:
        assert verdict.comparison.difference == pytest.approx((worse - better) / 1000)
        assert verdict.to_json()["outcome"] == outcome


def test_the_correction_is_for_the_number_of_conclusions() -> None:
    claim = claims()[0]
    pair = [results_of(claim.better, 100), results_of(claim.worse, 107)]
    alone, many = judge([claim], pair)[0], judge([claim] * 27, pair)[0]
    assert alone.outcome == many.outcome == FOR
    assert alone.holds_corrected
    assert not many.holds_corrected
    assert many.corrected == pytest.approx(min(1.0, 27 * 2 / 2**7))


def test_in_miniature_dense_rows_are_judged_only_where_the_claim_is_about_them() -> None:
    miniature, full = claims(miniature=True), claims()
    assert [claim.sentence for claim in miniature] == [claim.sentence for claim in full]
    for claim in miniature:
        kinds = {claim.better.kind, claim.worse.kind}
        assert (DENSE in kinds) == ("multi-crop is better than dense" in claim.sentence)
    assert len(full) == 27


def test_controls_train_as_long_as_the_nets_they_are_compared_with() -> None:
    setting = Setting()
    by_name = {step.name: step for step in steps_for_rows(rows_of_controls())}
    restarted, deeper = by_name["A2-256"], by_name["D-256"]
    assert (restarted.start, restarted.layers) == (deeper.start, deeper.layers)
    first, second = setting.spec(restarted), setting.spec(deeper)
    assert first.solver == second.solver
    assert first.stages == setting.spec(by_name["A-256"]).stages
    scratch, shallow = by_name["B-scratch-256"], by_name["B-shallow-256"]
    assert scratch.start is None
    assert setting.spec(scratch).solver.max_iter == setting.spec(shallow).solver.max_iter


def rows_of_controls() -> list[Row]:
    return [row for claim in controls() for row in (claim.better, claim.worse)]


def test_reports_list_missing_runs() -> None:
    row = rows(4)[0]
    lacking = Result(row, None, "B/72/64,72,80", ("verydeep recipe --net B",))
    assert cells(lacking)[2:6] == ["28.2", "9.6", "missing", "-"]
    shown = text_table(4, [lacking], ["A note."])
    assert "\n  verydeep recipe --net B\n" in shown
    assert "A note." in shown
    found = table_json(4, [lacking, dataclasses.replace(lacking, measured=measured(0.25))])
    assert found["rows"][0]["measured"] is None
    assert found["rows"][0]["missing"] == ["verydeep recipe --net B"]
    assert found["rows"][1]["measured"]["top1"] == pytest.approx(25.0)
    assert found["rows"][1]["paper"] == {"top1": 28.2, "top5": 9.6, "test_top5": None}


def test_titles_of_rows_in_pictures() -> None:
    assert row_title(rows(3)[8]) == "D, S 256-512, Q 384; dense"
    assert row_title(rows(5)[2]) == "D, S 256-512, Q 256, 384, 512; multi-crop and dense"
    assert row_title(rows(6)[0]) == "ILSVRC submission, 7 nets; dense"
    assert row_title(rows(6)[1]) == "D + E, S 256-512, Q 256, 384, 512; dense"
    assert row_title(rows(7)[-1]) == "Krizhevsky et al., 1 net (2012)"


def test_markdown_cells_keep_their_bars() -> None:
    assert markdown_table(["a"], [["x|y"]]) == ["| a |", "| --- |", "| x\\|y |"]
