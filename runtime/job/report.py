"""Write the report of a run: what was trained, how well it works, and where it fails."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from runtime.analysis.filter_tiles import tiles
from runtime.backend.base import HostArray
from runtime.evaluate.confusion import (
    class_errors,
    confusion_picture,
    frequent_confusions,
    short_name,
    worst_classes,
)
from runtime.evaluate.figures import new_figure, plain_text, save_figure
from runtime.job.report_facts import RunFacts
from runtime.job.report_page import Code, Item, Picture, Section, Table, write_html, write_markdown
from runtime.logs.learning_curve import plot_learning_curve

_MOST_CLASSES = 50
_MOST_PAIRS = 10
_MOST_FILTERS = 64
_FILTER_SCALE = 8
_COLUMNS = 4


def write_report(facts: RunFacts, names: Sequence[str], path: Path) -> list[Path]:
    """Write `path`, an HTML page, and the same as Markdown next to it; returns all files.

    `names` are those of the classes; missing ones are numbers.

    Raises:
        DataError: a file cannot be written, or the log cannot be read.
    """
    classes = len(facts.matrix)
    names = [*names[:classes], *map(str, range(len(names), classes))]
    title = f"Report of {facts.name}"
    sections = [
        Section("Result", _result(facts)),
        Section("Learning curve", _curve(facts)),
        Section("Classes", _classes(facts, names)),
        Section("Most confident mistakes", _mistakes(facts, names)),
        Section("Filters of the first layer", _filters(facts)),
        Section("Time of each layer", _times(facts)),
        Section("Data and settings", _settings(facts)),
        Section("Commands", [Code("\n".join(facts.commands))]),
    ]
    write_html(title, sections, path)
    return [path, *write_markdown(title, sections, path.with_suffix(".md"))]


def _result(facts: RunFacts) -> list[Item]:
    images = len(facts.evaluation.labels)
    rows: list[Sequence[str | float | int]] = [
        ("top-1 error", f"{100 * facts.evaluation.error(1):.2f} %"),
    ]
    if facts.evaluation.scores.shape[1] > 5:
        rows.append(("top-5 error", f"{100 * facts.evaluation.error(5):.2f} %"))
    rows += [("images", images), ("classes", len(facts.matrix)), ("parameters", facts.parameters)]
    if facts.iterations is not None:
        rows.append(("last iteration of the log", facts.iterations))
    rows.append(("weights", str(facts.weights)))
    return [Table(("Measure", "Value"), rows)]


def _curve(facts: RunFacts) -> list[Item]:
    if facts.log is None:
        return ["The run has no log."]
    log = facts.log
    png = _png(lambda path: plot_learning_curve(log, path))
    return [Picture("curve", png, f"Losses, scores and learning rate in {log}")]


def _classes(facts: RunFacts, names: Sequence[str]) -> list[Item]:
    errors, images = class_errors(facts.matrix), facts.matrix.sum(axis=1)
    shown = worst_classes(facts.matrix, _MOST_CLASSES)
    png = _png(lambda path: confusion_picture(facts.matrix, names, path))
    rows = [
        (names[k], int(images[k]), f"{100 * errors[k]:.1f} %" if images[k] else "none")
        for k in shown
    ]
    pairs = [(names[i], names[j], n) for i, j, n in frequent_confusions(facts.matrix, _MOST_PAIRS)]
    items: list[Item] = [Picture("confusion", png, "Confusion matrix, and the largest errors")]
    if len(shown) < len(facts.matrix):
        items.append(f"The {len(shown)} classes with the largest errors of {len(facts.matrix)}:")
    items.append(Table(("Class", "Images", "Error"), rows))
    if pairs:
        items.append(Table(("True class", "Predicted class", "Images"), pairs))
    return items


def _mistakes(facts: RunFacts, names: Sequence[str]) -> list[Item]:
    if not facts.mistakes:
        return ["No image is wrong."]
    rows = [
        (names[m.label], names[m.predicted], f"{100 * m.probability:.1f} %") for m in facts.mistakes
    ]
    items: list[Item] = [Table(("True class", "Predicted class", "Probability"), rows)]
    if facts.mistakes[0].image is not None:
        png = _png(lambda path: save_figure(_mistakes_figure(facts, names), path))
        caption = "The wrong images whose true class has the lowest probability"
        items.insert(0, Picture("mistakes", png, caption))
    return items


def _mistakes_figure(facts: RunFacts, names: Sequence[str]) -> Any:
    rows = -(-len(facts.mistakes) // _COLUMNS)
    figure = new_figure(2.4 * _COLUMNS, 2.8 * rows)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, mistake in zip(axes, facts.mistakes):
        axis.imshow(mistake.image)
        predicted, label = (short_name(names[k]) for k in (mistake.predicted, mistake.label))
        title = f"{predicted} {100 * mistake.probability:.0f} %\nis {label}"
        axis.set_title(plain_text(title), fontsize=9)
    return figure


def _filters(facts: RunFacts) -> list[Item]:
    if facts.filters is None:
        return ["The first layer has no filters of 1 or 3 channels."]
    grid = tiles(facts.filters[:_MOST_FILTERS])
    shown = min(_MOST_FILTERS, len(facts.filters))
    caption = f"{shown} of {len(facts.filters)} filters, each scaled to its own range"
    return [Picture("filters", _encoded(grid), caption)]


def _encoded(rgb: HostArray) -> bytes:
    """A PNG file of enlarged pixels."""
    enlarged = np.kron(rgb, np.ones((_FILTER_SCALE, _FILTER_SCALE, 1), np.uint8))
    return bytes(cv2.imencode(".png", enlarged[:, :, ::-1])[1])


def _times(facts: RunFacts) -> list[Item]:
    total = sum(milliseconds for _, _, milliseconds in facts.layer_times) or 1.0
    rows = [
        (name, kind, f"{milliseconds:.3f}", f"{100 * milliseconds / total:.1f} %")
        for name, kind, milliseconds in facts.layer_times
    ]
    words = "Shortest of three passes of one test batch, forward, on the device of this report."
    return [words, Table(("Layer", "Type", "Milliseconds", "Share"), rows)]


def _settings(facts: RunFacts) -> list[Item]:
    rows = [*facts.data.items(), *((f"solver: {key}", v) for key, v in facts.settings.items())]
    return [Table(("Setting", "Value"), rows)]


def _png(draw: Callable[[Path], object]) -> bytes:
    """The bytes of a picture that is drawn into a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return path.read_bytes()
