"""A list of image files, with a line `path label` for each, as a source of records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep import datum as datums
from data_prep.convert_imageset import read_list
from data_prep.datum import warp
from data_prep.image_file import read_image_file
from data_prep.image_folder import class_entries


@dataclass(frozen=True)
class ImageList:
    """Image files as records: raw Datums of their pixels.

    Units: `size` in pixels.
    """

    root: Path
    entries: tuple[tuple[str, int], ...]
    color: bool = True
    size: tuple[int, int] | None = None
    """Height and width to which every image is warped."""

    @classmethod
    def read(
        cls, source: str | Path, root: Path, color: bool, size: tuple[int, int] | None
    ) -> ImageList:
        """Read the list of an ImageData layer, or the names below a folder of class folders.

        Raises:
            DataError: see `read_list` and `class_entries`.
        """
        folder = Path(source)
        entries = class_entries(folder) if folder.is_dir() else read_list(source)
        return cls(root, tuple(entries), color, size)

    def from_record(self, first: int) -> ImageList:
        """The list rotated so that it begins with another record."""
        first %= len(self.entries)
        return dataclasses.replace(self, entries=self.entries[first:] + self.entries[:first])

    def __len__(self) -> int:
        """The number of images."""
        return len(self.entries)

    def key(self, index: int) -> str:
        """The file name of a record."""
        return self.entries[index][0]

    def get(self, index: int) -> bytes:
        """Read a file as a serialised raw Datum.

        Raises:
            DataError: the file is missing or does not decode.
        """
        name, label = self.entries[index]
        path = self.root / name
        mode = datums.COLOR if self.color else datums.GRAY
        image = datums.decode(read_image_file(path), str(path), mode)
        if self.size is not None:
            image = warp(image, *self.size, str(path))
        datum = datums.from_array(np.ascontiguousarray(image.transpose(2, 0, 1)), label)
        return bytes(datum.SerializeToString())
