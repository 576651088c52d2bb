"""PASCAL VOC on disk, one year of it, as the archives unpack it.

    JPEGImages/<id>.jpg
    ImageSets/Main/<class>_<split>.txt      `id target`: 1 there, -1 not there, 0 there, but hard
    ImageSets/Action/<action>_<split>.txt   `id object target`: the object-th of the annotation
    Annotations/<id>.xml                    boxes of the objects, from 1 to the far pixel

Paper: appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.boxes import Box, read_boxes
from data_prep.ilsvrc_truth import listed, read_lines
from prototxt_gen.errors import DataError
from prototxt_gen.reading import parse_integer

MAIN, ACTION = "Main", "Action"
OTHER = "other"
"""People who do none of the actions; the development kit has no classifier for them."""

_TARGETS = {"1": 1, "-1": -1, "0": 0}
_COLUMNS = {MAIN: "`id target`", ACTION: "`id object target`"}


@dataclass(frozen=True)
class Listed:
    """A line of a class's list; `person` is its place in the annotation, from 1, 0 in Main."""

    image: str
    person: int
    target: int


@dataclass(frozen=True)
class Voc:
    """The folder of one year."""

    root: Path

    def lists(self, split: str, kind: str = MAIN) -> dict[str, list[Listed]]:
        """The list of every class, by name, for `train`, `val`, `trainval` or `test`.

        Raises:
            DataError: there are no such lists, one does not read, or they differ in their images.
        """
        folder = self.root / "ImageSets" / kind
        names = self._classes(folder, split)
        found = {name: _read_list(folder / f"{name}_{split}.txt", kind) for name in names}
        first = names[0]
        wanted = [(each.image, each.person) for each in found[first]]
        for name in names[1:]:
            if [(each.image, each.person) for each in found[name]] != wanted:
                raise DataError(
                    f"{folder}: {name}_{split}.txt and {first}_{split}.txt name other images; "
                    "expected one order for all classes; unpack the development kit again"
                )
        return found

    def file(self, image: str) -> str:
        """The image's path below the root."""
        return f"JPEGImages/{image}.jpg"

    def box(self, image: str, person: int) -> Box:
        """A box of the image's annotation, by its place from 1.

        Raises:
            DataError: no annotation, or not as many boxes.
        """
        path = self.root / "Annotations" / f"{image}.xml"
        boxes = read_boxes(path)
        if not 1 <= person <= len(boxes):
            raise DataError(
                f"{path}: {len(boxes)} objects; expected object {person}, which a list of "
                "ImageSets/Action names; unpack the annotations again"
            )
        return boxes[person - 1]

    def _classes(self, folder: Path, split: str) -> list[str]:
        ending = f"_{split}.txt"
        files = sorted(folder.glob(f"*{ending}"))
        names = [path.name.removesuffix(ending) for path in files]
        names = [name for name in names if name != OTHER]
        if not names:
            there = sorted({path.stem.rpartition("_")[2] for path in folder.glob("*_*.txt")})
            raise DataError(
                f"{folder}: no lists of the split {split!r}; expected <class>{ending}, got "
                f"{'the splits ' + ', '.join(there) if there else 'none'}; unpack the archive "
                "that has them, or choose another split"
            )
        return names


def open_voc(root: str | Path) -> Voc:
    """Find a year's folder: the root itself, or the only VOC* in it or in its VOCdevkit.

    Raises:
        DataError: there is none, or there are several.
    """
    base = Path(root)
    for folders in ([base], sorted(base.glob("VOC2*")), sorted(base.glob("VOCdevkit/VOC2*"))):
        found = [path for path in folders if is_voc(path)]
        if len(found) > 1:
            raise DataError(
                f"{base}: {len(found)} years, {listed(found)}; expected one; name its folder"
            )
        if found:
            return Voc(found[0])
    raise DataError(
        f"{base}: no PASCAL VOC; expected the folders JPEGImages and ImageSets there, in VOC<year> "
        "or in VOCdevkit/VOC<year>; unpack the archive, and name the year's folder"
    )


def is_voc(folder: Path) -> bool:
    """Whether a folder is laid out as a year of VOC."""
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets").is_dir()


def _read_list(path: Path, kind: str) -> list[Listed]:
    found = []
    for number, line in enumerate(read_lines(path), 1):
        words = line.split()
        image, *place, target = words if len(words) > 1 else ("", "")
        person = "".join(place) if kind == ACTION else "0"
        value = parse_integer(person)
        if target not in _TARGETS or len(place) != (kind == ACTION) or value is None or value < 0:
            raise DataError(
                f"{path}:{number}: {line!r}; expected {_COLUMNS[kind]}, the target 1, -1 or 0; "
                "unpack the development kit again"
            )
        found.append(Listed(image, value, _TARGETS[target]))
    if not found:
        raise DataError(f"{path}: the list is empty; expected {_COLUMNS[kind]} lines; unpack again")
    return found
