"""Image files with labels as records, and the records of a database or of a data set's split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep import datum as datums
from data_prep.image_file import read_image_file
from data_prep.lmdb_io import Reader
from data_prep.open_data_set import is_data_set, open_data_set
from data_prep.read_plan import RecordSource


@dataclass(frozen=True)
class ImageFiles:
    """The files and labels of a list, as a source of records."""

    root: Path
    entries: Sequence[tuple[str, int]]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.entries)

    def key(self, index: int) -> str:
        """The file name of a record."""
        return self.entries[index][0]

    def get(self, index: int) -> bytes:
        """Read a file as a serialised encoded Datum.

        Raises:
            DataError: the file cannot be read.
        """
        name, label = self.entries[index]
        data = read_image_file(self.root / name)
        return bytes(datums.from_encoded(data, label).SerializeToString())


def open_records(path: str | os.PathLike[str], train: bool) -> RecordSource:
    """Open an LMDB, or the training or held-out images of a data set in any layout.

    Raises:
        DataError: neither exists.
    """
    place = Path(path)
    if is_data_set(place):
        data = open_data_set(place)
        return ImageFiles(data.root, data.train_list() if train else data.val_list())
    return Reader(place)
