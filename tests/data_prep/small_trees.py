"""Tiny data sets laid out as PASCAL VOC and as Caltech, of coloured noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30), "pig": (30, 30, 200)}
"""Classes and the colour (B,G,R) that gives them away."""
SIZES = ((24, 24), (24, 30), (28, 22))


def coloured(
    rng: np.random.Generator, colour: tuple[int, int, int], size: tuple[int, int]
) -> np.ndarray:
    """Noise around a colour."""
    noise = rng.normal(0, 25, (*size, 3))
    return np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_voc(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A year of VOC: images of one class each, every seventh also listed as hard for the next.

    `counts` has the images of each split.
    """
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {}
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            name = f"{number:06d}"
            own = number % len(COLOURS)
            size = SIZES[number % 2]
            write_image(
                root / "JPEGImages" / f"{name}.jpg",
                coloured(rng, list(COLOURS.values())[own], size),
            )
            for index, label in enumerate(COLOURS):
                target = 1 if index == own else -1
                if number % 7 == 6 and index == (own + 1) % len(COLOURS):
                    target = 0
                lists.setdefault(f"Main/{label}_{split}.txt", []).append(f"{name} {target:2d}")
            lists.setdefault(f"Main/{split}.txt", []).append(name)
            number += 1
    _write_lists(root, lists)
    return root


def write_actions(root: Path, counts: dict[str, int], seed: int = 1) -> Path:
    """Images of two people side by side, in the colours of their actions, and their boxes."""
    rng = np.random.default_rng(seed)
    lists: dict[str, list[str]] = {}
    number = 0
    for split, count in counts.items():
        for _ in range(count):
            name = f"2010_{number:06d}"
            doing = [int(k) for k in rng.permutation(len(COLOURS))[:2]]
            image = np.concatenate(
                [coloured(rng, list(COLOURS.values())[k], (24, 20)) for k in doing], axis=1
            )
            write_image(root / "JPEGImages" / f"{name}.jpg", image)
            write_annotation(root, name, [(1, 1, 20, 24), (21, 1, 40, 24)])
            for person, k in enumerate(doing, 1):
                for index, label in enumerate(COLOURS):
                    line = f"{name} {person} {1 if index == k else -1:2d}"
                    lists.setdefault(f"Action/{label}_{split}.txt", []).append(line)
                lists.setdefault(f"Action/other_{split}.txt", []).append(f"{name} {person} -1")
            number += 1
    _write_lists(root, lists)
    return root


def write_annotation(root: Path, name: str, boxes: list[tuple[int, int, int, int]]) -> None:
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>person</name><bndbox>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(corners, box))
        + "</bndbox></object>"
        for box in boxes
    )
    path = root / "Annotations" / f"{name}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{objects}</annotation>")


def write_caltech(
    root: Path, count: int, seed: int = 2, folder: str = "101_ObjectCategories"
) -> Path:
    """A folder per class with `count` images, and the other files of Caltech-256."""
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        for index in range(count):
            path = root / folder / label / f"image_{index + 1:04d}.jpg"
            write_image(path, coloured(rng, colour, SIZES[index % 3]))
    (root / folder / "cat" / "RENAME2").write_text("no image")
    (root / folder / "cat" / "greg").mkdir()
    return root


def _write_lists(root: Path, lists: dict[str, list[str]]) -> None:
    for name, lines in lists.items():
        path = root / "ImageSets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
