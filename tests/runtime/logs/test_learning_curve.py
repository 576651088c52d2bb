"""The picture of a run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from prototxt_gen.errors import DataError
from runtime.logs.learning_curve import learning_curve_figure, plot_learning_curve

TRACE = Path(__file__).parents[2] / "golden" / "traces" / "lenet_step" / "log.txt"


def _colours(png: Path) -> set[tuple[int, ...]]:
    image = cv2.imread(str(png))
    assert image is not None and min(image.shape[:2]) > 400
    return {tuple(int(v) for v in pixel) for pixel in np.unique(image.reshape(-1, 3), axis=0)}


BLUE, ORANGE = (0xB4, 0x77, 0x1F), (0x0E, 0x7F, 0xFF)


def test_a_caffe_log(tmp_path: Path) -> None:
    png = plot_learning_curve(TRACE, tmp_path / "out" / "curve.png")
    assert png == tmp_path / "out" / "curve.png"
    assert {BLUE, ORANGE} <= _colours(png)


def test_json_lines_without_tests(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    records = [
        {
            "event": "train",
            "iteration": i,
            "lr": 0.1,
            "outputs": {"loss": 2.0 / (i + 1)},
            "seconds": i,
        }
        for i in range(100)
    ]
    records.append({"event": "train", "iteration": 100, "lr": 0.1, "outputs": {"loss": None}})
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    few = cv2.imread(str(plot_learning_curve(log, tmp_path / "curve.png", "A title")))
    full = cv2.imread(str(plot_learning_curve(TRACE, tmp_path / "full.png")))
    # Without scores there is one panel less.
    assert few is not None and full is not None and few.shape[0] < full.shape[0]


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the log cannot be read"):
        plot_learning_curve(tmp_path / "none", tmp_path / "curve.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        plot_learning_curve(TRACE, tmp_path / "file" / "curve.png")


@pytest.mark.parametrize("loss", ["1e308", "1e999", "-1e308", "5e-324", "nan", "0"])
def test_losses_that_no_axis_has_room_for(loss: str, tmp_path: Path) -> None:
    """A curve has to show a run that diverged."""
    line = "I1231 23:59:55.000000 7 solver.cpp:258]     "
    text = "".join(
        f"{line}Iteration {n}\n{line}Train net output #0: loss = {value}\n"
        for n, value in enumerate(["2.5", loss, "-1e300", loss])
    )
    (tmp_path / "log").write_text(text)
    assert plot_learning_curve(tmp_path / "log", tmp_path / "out.png").stat().st_size > 1000


def _log(path: Path, losses: int, points: int = 100) -> Path:
    """A run with so many outputs named as losses and as many scores, in training and in tests."""
    names = [f"loss{i}" for i in range(losses)] + [f"accuracy{i}" for i in range(losses)]
    records = [
        {"event": event, "iteration": i, "lr": 0.1, "net": 0, "outputs": values, "seconds": i}
        for i in range(points)
        for event in ("train", "test")
        if (values := {name: (k + 1) / (i + 2) for k, name in enumerate(names)})
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("losses", [1, 2, 3, 7])
def test_a_colour_has_one_meaning_in_the_whole_picture(losses: int, tmp_path: Path) -> None:
    """Training's loss, the test's loss and each score: no two of them share a colour."""
    from matplotlib.colors import to_hex

    figure = learning_curve_figure(_log(tmp_path / "log", losses))
    meanings: dict[str, set[str]] = {}
    for axis in figure.axes:
        for line in axis.lines:
            meaning = str(line.get_label()).partition(",")[0]
            meanings.setdefault(to_hex(line.get_color()), set()).add(meaning)
    assert all(len(meaning) == 1 for meaning in meanings.values()), meanings
    assert len(meanings) == 4 * losses + 1  # and the learning rate


def test_every_curve_is_in_the_legend(tmp_path: Path) -> None:
    figure = learning_curve_figure(_log(tmp_path / "log", 1))
    legends = [[text.get_text() for text in axis.get_legend().texts] for axis in figure.axes[:2]]
    assert legends == [
        ["train loss0, as logged", "train loss0, mean of 5 values", "test loss0"],
        [
            "train accuracy0, as logged",
            "train accuracy0, mean of 5 values",
            "test accuracy0, maximum 1",
        ],
    ]
    assert [len(axis.lines) for axis in figure.axes[:2]] == [3, 3]
    raw, mean = figure.axes[0].lines[:2]
    assert np.mean(raw.get_ydata()[6:11]) == pytest.approx(mean.get_ydata()[10])


def test_a_short_run_has_no_running_mean(tmp_path: Path) -> None:
    figure = learning_curve_figure(_log(tmp_path / "log", 1, points=59))
    labels = [line.get_label() for line in figure.axes[0].lines]
    assert labels == ["train loss0", "test loss0"]


@pytest.mark.parametrize("outputs", [1, 3, 12, 25])
def test_a_legend_covers_no_axes(outputs: int, tmp_path: Path) -> None:
    values = {f"{kind}/{i}": 1.0 for kind in ("loss", "accuracy") for i in range(outputs)}
    records = [
        {"event": event, "iteration": n, "lr": 0.1, "outputs": values}
        for n in range(70)
        for event in ("train", "test")
    ]
    (tmp_path / "log").write_text("".join(json.dumps(record) + "\n" for record in records))
    figure = learning_curve_figure(tmp_path / "log")
    FigureCanvasAgg(figure).draw()
    panels = [axis.get_window_extent() for axis in figure.axes]
    legends = [axis.get_legend().get_window_extent() for axis in figure.axes[:2]]
    for legend in legends:
        assert not any(legend.overlaps(panel) for panel in panels)
        assert legend.x1 <= figure.bbox.x1
    assert not legends[0].overlaps(legends[1])
    assert min(panel.width for panel in panels) > 250
