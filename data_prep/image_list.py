"""A list of image files, `path label` a line, as a source of records."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from data_prep.convert_imageset import read_list
from prototxt_gen import proto
from prototxt_gen.errors import DataError


@dataclass(frozen=True)
class ImageList:
    """Image files seen as records: Datums that hold a file's pixels or bytes."""

    root: Path
    entries: tuple[tuple[str, int], ...]
    color: bool = True
    size: tuple[int, int] | None = None
    """Height and width that every image is warped to."""

    @classmethod
    def read(
        cls, source: str | Path, root: Path, color: bool, size: tuple[int, int] | None
    ) -> ImageList:
        """Read the list of an ImageData layer. See `read_list`."""
        return cls(root, tuple(read_list(source)), color, size)

    def from_record(self, first: int) -> ImageList:
        """The same list begun at another place."""
        first %= len(self.entries)
        return dataclasses.replace(self, entries=self.entries[first:] + self.entries[:first])

    def __len__(self) -> int:
        """Count the images."""
        return len(self.entries)

    def key(self, index: int) -> str:
        """Name the file of a record."""
        return self.entries[index][0]

    def get(self, index: int) -> bytes:
        """Read a file as a serialised raw Datum.

        Raises:
            DataError: the file is missing or is no image.
        """
        import cv2

        name, label = self.entries[index]
        path = self.root / name
        flag = cv2.IMREAD_COLOR if self.color else cv2.IMREAD_GRAYSCALE
        image = cv2.imread(str(path), flag)
        if image is None:
            raise DataError(f"{path}: no image that can be decoded; remove it from the list")
        if self.size is not None:
            image = cv2.resize(image, self.size[::-1])
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        datum = proto.Datum()
        datum.channels, datum.height, datum.width = planes.shape
        datum.label, datum.data = label, planes.tobytes()
        return bytes(datum.SerializeToString())
