"""Small data sets in the layouts of folders, CSV and COCO."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.data_prep.small_trees import COLOURS, coloured, write_image


def write_folders(
    root: Path, counts: int = 5, classes: tuple[str, ...] = tuple(COLOURS), seed: int = 0
) -> Path:
    """A folder of `counts` images for each class, each of the class's colour."""
    rng = np.random.default_rng(seed)
    palette = list(COLOURS.values())
    for label, name in enumerate(classes):
        for number in range(counts):
            image = coloured(rng, palette[label % len(palette)], (24, 30))
            write_image(root / name / f"{number}.jpg", image)
    return root


def write_coco(root: Path, split: str, counts: int = 4, first_id: int = 1) -> Path:
    """Images of one object each, of the classes in turn, and one image of two classes."""
    rng = np.random.default_rng(first_id)
    palette = list(COLOURS.values())
    images, annotations = [], []
    for number in range(counts * len(palette)):
        name, label = f"{first_id + number:012d}.jpg", number % len(palette)
        write_image(root / split / name, coloured(rng, palette[label], (24, 30)))
        images.append({"id": first_id + number, "file_name": name, "height": 24, "width": 30})
        box = {"image_id": first_id + number, "category_id": label + 5, "bbox": [3, 4, 10, 12]}
        annotations.append({"id": number, **box})
    annotations.append({"id": 999, "image_id": first_id, "category_id": 6, "bbox": [0, 0, 5, 5]})
    categories = [{"id": index + 5, "name": name} for index, name in enumerate(COLOURS)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return root
