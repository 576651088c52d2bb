"""One year of PASCAL VOC on disk, in the layout of its archives.

    JPEGImages/<id>.jpg
    ImageSets/Main/<class>_<split>.txt      `id target`: 1 present, -1 absent, 0 difficult
    ImageSets/Action/<action>_<split>.txt   `id object target`: an index into the annotation
    Annotations/<id>.xml                    boxes of the objects, in pixels from 1

Paper: appendix B.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_prep.boxes import Box, read_boxes
from data_prep.ilsvrc_truth import listed
from data_prep.text_lines import MAX_INT32, file_name, integer, read_lines
from prototxt_gen.errors import DataError

MAIN, ACTION = "Main", "Action"
OTHER = "other"
"""People with none of the actions; the development kit has no classifier for them."""

_TARGETS = {"1": 1, "-1": -1, "0": 0}
_COLUMNS = {MAIN: "`id target`", ACTION: "`id object target`"}


@dataclass(frozen=True)
class Listed:
    """A line of a class list; `person` is an index into the annotation, from 1, or 0 in Main."""

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
            DataError: there are no such lists, one cannot be read, or they differ in their images.
        """
        folder = self.root / "ImageSets" / kind
        names = self._classes(folder, split)
        lists = {name: _read_list(folder / f"{name}_{split}.txt", kind) for name in names}
        first = names[0]
        expected = [(line.image, line.person) for line in lists[first]]
        for name in names[1:]:
            if [(line.image, line.person) for line in lists[name]] != expected:
                raise DataError(
                    f"{folder}: {name}_{split}.txt and {first}_{split}.txt name other images; "
                    "expected one order for all classes; unpack the development kit again"
                )
        return lists

    def file(self, image: str) -> str:
        """The path of an image below the root."""
        return f"JPEGImages/{image}.jpg"

    def box(self, image: str, person: int) -> Box:
        """A box of an image's annotation, by its index from 1.

        Units: pixels, from 1.

        Raises:
            DataError: there is no annotation, or it has fewer boxes.
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
            splits = sorted({path.stem.rpartition("_")[2] for path in folder.glob("*_*.txt")})
            raise DataError(
                f"{folder}: no lists of the split {split!r}; expected <class>{ending}, got "
                f"{'the splits ' + ', '.join(splits) if splits else 'none'}; unpack the archive "
                "that has them, or choose another split"
            )
        return names


def open_voc(root: str | Path) -> Voc:
    """Find the folder of a year: the root itself, or the only VOC* in it or in its VOCdevkit.

    Raises:
        DataError: there is no such folder, or there are several.
    """
    base = Path(root)
    years = find_voc(base)
    if len(years) > 1:
        raise DataError(
            f"{base}: {len(years)} years, {listed(years)}; expected one; name its folder"
        )
    if years:
        return Voc(years[0])
    raise DataError(
        f"{base}: no PASCAL VOC; expected the folders JPEGImages and ImageSets there, in VOC<year> "
        "or in VOCdevkit/VOC<year>; unpack the archive, and name the year's folder"
    )


def find_voc(base: Path) -> list[Path]:
    """The folders of years: the folder itself, or those in it, or in its VOCdevkit."""
    for folders in ([base], sorted(base.glob("VOC2*")), sorted(base.glob("VOCdevkit/VOC2*"))):
        years = [path for path in folders if is_voc(path)]
        if years:
            return years
    return []


def is_voc(folder: Path) -> bool:
    """Whether a folder has the layout of a year of VOC."""
    return (folder / "JPEGImages").is_dir() and (folder / "ImageSets").is_dir()


def _read_list(path: Path, kind: str) -> list[Listed]:
    listed_images = []
    for number, line in read_lines(path):
        words = line.split()
        image, *place, target = words if len(words) > 1 else ("", "")
        person = integer("".join(place) if kind == ACTION else "0", 0, MAX_INT32)
        if target not in _TARGETS or len(place) != (kind == ACTION) or person is None:
            raise DataError(
                f"{path}:{number}: {line!r}; expected {_COLUMNS[kind]}, the target 1, -1 or 0; "
                "unpack the development kit again"
            )
        listed_images.append(Listed(file_name(image), person, _TARGETS[target]))
    if not listed_images:
        raise DataError(f"{path}: the list is empty; expected {_COLUMNS[kind]} lines; unpack again")
    return listed_images
