"""The results of a task, as text and as JSON, with everything they depend on."""

from __future__ import annotations

from typing import Any

from runtime.evaluate.evaluation import provenance_lines
from runtime.paper.features.classification import Outcome
from runtime.paper.features.measures import RECALL
from runtime.paper.features.published import NOTE, rows
from runtime.paper.report import columns, percent

_WORST = 5


def title(outcome: Outcome) -> str:
    """Return the name of the measure."""
    return "mean class recall" if outcome.task.measure == RECALL else "mean AP"


def outcome_lines(outcome: Outcome) -> list[str]:
    """Return the result, its protocol, and the published numbers of the task."""
    task = outcome.task
    lines = [
        f"{title(outcome)}: {_mean(outcome)} %",
        f"task: {task.name} of {task.root}",
        f"  {task.words}",
        f"  measure: {task.measure} of each of {len(task.classes)} classes",
        f"classifier: {outcome.svm_words()}; {outcome.dimension} features",
    ]
    for member in outcome.members:
        lines.append(
            f"features: {member['net']}, {member['layer']}, crop {member.get('crop')}, of "
            f"{member['regions']} ({member.get('model')})"
        )
        lines += provenance_lines(member)
    return [*lines, "", *_class_lines(outcome), *_published_lines(outcome)]


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return the results as a JSON object: fractions; published numbers in per cent."""
    task = outcome.task
    return {
        "task": task.name,
        "root": task.root,
        "measure": task.measure,
        "protocol": task.words,
        "options": task.options,
        "mean": outcome.mean,
        "std": outcome.std,
        "classifier": outcome.svm_words(),
        "dimension": outcome.dimension,
        "features": list(outcome.members),
        "splits": [
            {
                "mean": split.mean,
                "C": split.choice.C,
                "held_out": {f"{C:g}": value for C, value in split.choice.measured.items()},
                "train": split.train,
                "test": split.test,
                "classes": dict(zip(task.classes, split.classes)),
            }
            for split in outcome.splits
        ],
        "paper": [
            {
                "table": row.table,
                "method": row.method,
                **row.published,
                "extended_training_set": row.extended,
            }
            for row in rows(task.name)
        ],
    }


def _published_lines(outcome: Outcome) -> list[str]:
    published = rows(outcome.task.name)
    if not published:
        return []
    body = [
        (row.method, percent(**row.published) + ("*" if row.extended else "")) for row in published
    ]
    head = f"Table {published[0].table} of the paper, {title(outcome)} in per cent"
    lines = ["", head, *columns([*body, ("measured here", _mean(outcome))], indent="  ")]
    return [*lines, f"  {NOTE}"] if any(row.extended for row in published) else lines


def _mean(outcome: Outcome) -> str:
    return percent(100 * outcome.mean, None if outcome.std is None else 100 * outcome.std)


def _class_lines(outcome: Outcome) -> list[str]:
    """Return the mean over the splits of every class, or of the lowest of many classes."""
    means = [sum(values) / len(values) for values in zip(*(s.classes for s in outcome.splits))]
    pairs = list(zip(outcome.task.classes, means))
    head = f"{outcome.task.measure} in per cent"
    if len(pairs) > 4 * _WORST:
        head = f"{head}, the {_WORST} lowest of {len(pairs)}"
        pairs = sorted(pairs, key=lambda pair: pair[1])[:_WORST]
    body = [(name, f"{100 * value:5.1f}") for name, value in pairs]
    return [head, *columns(body, indent="  ")]
