"""What a task gave, for people and as JSON: the number, and all that it depends on."""

from __future__ import annotations

from typing import Any

from runtime.paper.features.classification import Outcome
from runtime.paper.features.measures import RECALL
from runtime.paper.features.published import NOTE, TABLE, paper_rows

_WORST = 5


def title(outcome: Outcome) -> str:
    """What is measured."""
    return "mean class recall" if outcome.task.measure == RECALL else "mean AP"


def outcome_lines(outcome: Outcome) -> list[str]:
    """The result, its protocol, and the paper's figures where the data is the paper's."""
    task = outcome.task
    lines = [f"{title(outcome)}: {_percent(outcome)} %", f"task: {task.name} of {task.root}"]
    lines += [
        f"  {task.words}",
        f"  measure: {task.measure} of each of {len(task.classes)} classes",
    ]
    lines.append(f"classifier: {outcome.svm_words()}; {outcome.dimension} features")
    for member in outcome.members:
        lines.append(
            f"features: {member['net']}, {member['layer']}, crop {member.get('crop')}, of "
            f"{member['regions']} ({member.get('model')})"
        )
        lines.append(f"  weights: {member.get('weights')}, sha256 {member['weights_sha256']}")
        lines.append(f"  protocol: {member.get('protocol')}")
        lines.append(f"  preprocessing: {member.get('preprocessing')}")
    lines += ["", *_class_lines(outcome)]
    rows = paper_rows(task.name)
    if rows:
        lines += ["", f"Table {TABLE[task.name]} of the paper, {title(outcome)} in per cent"]
        width = max(len(row.method) for row in rows)
        lines += [f"  {row.method:<{width}}  {row.text()}" for row in rows]
        lines.append(f"  {'measured here':<{width}}  {_percent(outcome)}")
        if any(row.extended for row in rows):
            lines.append(f"  {NOTE}")
    return lines


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The same; fractions, but for the paper's figures, which are in per cent as printed."""
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
                "table": TABLE[task.name],
                "method": row.method,
                "value": row.value,
                "std": row.std,
                "extended_training_set": row.extended,
            }
            for row in paper_rows(task.name)
        ],
    }


def _percent(outcome: Outcome) -> str:
    spread = "" if outcome.std is None else f" ± {100 * outcome.std:.1f}"
    return f"{100 * outcome.mean:.1f}{spread}"


def _class_lines(outcome: Outcome) -> list[str]:
    """Every class, or the worst where there are many; the mean over the splits."""
    means = [sum(values) / len(values) for values in zip(*(s.classes for s in outcome.splits))]
    pairs = list(zip(outcome.task.classes, means))
    head = f"{outcome.task.measure} in per cent"
    if len(pairs) > 4 * _WORST:
        head = f"{head}, the {_WORST} lowest of {len(pairs)}"
        pairs = sorted(pairs, key=lambda pair: pair[1])[:_WORST]
    width = max(len(name) for name, _ in pairs)
    return [head, *(f"  {name:<{width}}  {100 * value:5.1f}" for name, value in pairs)]
