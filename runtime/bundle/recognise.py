"""Recognises public models by the names of their layers and the shapes of their weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from prototxt_gen.heads import DENSE_SUFFIX
from runtime.bundle.known_models import KNOWN_MODELS, KnownModel, Shape
from runtime.weights.weights_file import open_weights


@dataclass(frozen=True)
class Recognised:
    """A known model; `exact` is False for another classifier on the same layers."""

    model: KnownModel
    exact: bool

    def describe(self) -> str:
        """The model and its published preprocessing, for a log."""
        model = self.model
        words = f"{model.name}" if self.exact else f"the layers of {model.name}"
        text = f"recognised as {words} ({model.source}): {model.preprocessing.describe()}"
        return f"{text}; {model.note}" if model.note else text


def weight_shapes(path: str | os.PathLike[str]) -> dict[str, Shape]:
    """The shape of the first blob of every layer of a file of weights.

    Raises:
        SnapshotError: the file is missing, damaged, or no file of weights.
    """
    with open_weights(path) as layers:
        return {
            str(layer.name): tuple(next(iter(layer.blobs.values())).shape)
            for layer in layers
            if layer.blobs
        }


def recognise(shapes: Mapping[str, Shape], name: str = "") -> Recognised | None:
    """The known model with these weights; None if there is none.

    Of models with the same shapes, the one that is called `name` is preferred. If the classifier is
    of another number of classes, the model is that of ILSVRC with the same layers.
    """
    named = {layer.removesuffix(DENSE_SUFFIX): _squeezed(shape) for layer, shape in shapes.items()}
    classes = _classes(named)
    found = [model for model in KNOWN_MODELS if _has_layers(model, named)]
    exact = [model for model in found if model.classes in classes]
    candidates = exact or found
    if not candidates:
        return None
    same_name = [model for model in candidates if model.name.lower() == name.lower()]
    return Recognised((same_name or candidates)[0], bool(exact))


def recognise_file(path: str | os.PathLike[str], name: str = "") -> Recognised | None:
    """The known model in a file of weights; see `recognise`.

    Raises:
        SnapshotError: see `weight_shapes`.
    """
    return recognise(weight_shapes(path), name)


def _has_layers(model: KnownModel, shapes: Mapping[str, Shape]) -> bool:
    if any(layer in shapes for layer in model.absent):
        return False
    return all(
        layer in shapes and _same(shapes[layer], shape) for layer, shape in model.layers.items()
    )


def _same(found: Shape, expected: Shape) -> bool:
    """Whether shapes are equal, or filters have the numbers of the rows of a matrix."""
    if found == expected:
        return True
    matrix = len(expected) == 2 and len(found) == 4
    return matrix and found[0] == expected[0] and found[1] * found[2] * found[3] == expected[1]


def _classes(shapes: Mapping[str, Shape]) -> set[int]:
    """The numbers of outputs of the last layers, one of which is the classifier."""
    return {shape[0] for shape in list(shapes.values())[-4:] if shape}


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)
