"""Small bundles for tests."""

from __future__ import annotations

from pathlib import Path

from runtime.bundle.bundle import Bundle
from runtime.bundle.preprocessing import Preprocessing
from tests.runtime.inference.test_model import CLASSES, write

LABELS = ("apple", "pear", "Prunus, cherry", "plum", "fig")


def small_bundle(folder: Path) -> Bundle:
    """A bundle of a net of five classes with inputs of 12x12, not written yet."""
    model, weights = write(folder, CLASSES)
    return Bundle(
        model,
        weights,
        Preprocessing((12, 12), short_side=14, mean_value=(104.0, 117.0, 123.0)),
        LABELS,
        "small",
        "CC-BY",
        {"top1_error": 0.25},
        {"seed": 1},
    )
