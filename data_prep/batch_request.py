"""The images of one read, and how far they are made. See prefetch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.batch import ImageLoader
from data_prep.transform import Floats
from prototxt_gen.errors import DataError, VerydeepError

Labels = npt.NDArray[np.float32]
Arrays = tuple[Floats, Labels]


def as_data_error(cause: Exception, where: str) -> DataError:
    """An unforeseen error as one of the typed family."""
    error = DataError(
        f"{where}: {cause!r}; expected a record that can be read; "
        "the cause shown with this error says where it failed"
    )
    error.__cause__ = cause
    return error


class BatchRequest:
    """Images first .. first+count-1 of an iteration, and how far they are made.

    Without `arrays` the first image determines the size of all, and is made before the others.
    """

    def __init__(
        self,
        loader: ImageLoader,
        name: tuple[int, int, int],
        channels: int,
        arrays: Arrays | None,
    ) -> None:
        self.name = name
        self.data: Floats | None = None
        self.labels = np.empty(self.count, np.float32)
        if arrays is not None:
            self.data, self.labels = arrays
        self.handed_out = 0
        self.left = self.count
        self.errors: dict[int, VerydeepError] = {}
        self._loader = loader
        self._channels = channels
        self._words = loader.draw(*name)

    @property
    def count(self) -> int:
        return self.name[2]

    @property
    def open(self) -> bool:
        """Whether there are rows to be made now."""
        return self.handed_out < self.count and (self.data is not None or not self.handed_out)

    def take(self, most: int) -> range:
        """Hand out the next rows to be made."""
        stop = min(self.count, self.handed_out + most) if self.data is not None else 1
        rows = range(self.handed_out, stop)
        self.handed_out = rows.stop
        return rows

    def make(self, rows: range) -> None:
        """Make rows; what goes wrong is kept for the consumer."""
        iteration, first, _ = self.name
        for row in rows:
            try:
                self._make_row(row)
            except VerydeepError as error:
                self.errors[row] = error
            except Exception as cause:  # noqa: BLE001  the consumer raises it, as DataError
                self.errors[row] = as_data_error(
                    cause, f"image {first + row} of iteration {iteration}"
                )

    def _make_row(self, row: int) -> None:
        iteration, first, count = self.name
        position, words = first + row, self._words[row]
        if self.data is not None:
            self.labels[row] = self._loader.load(iteration, position, words, self.data[row])
            return
        image, self.labels[row] = self._loader.load_any_size(
            iteration, position, words, self._channels
        )
        data = image[None]
        if count > 1:
            data = np.empty((count, *image.shape), image.dtype)
            data[0] = image
        self.data = data

    def settle(self, rows: range) -> None:
        """Note that rows are made; without the first, whose size is missing, none can be."""
        if self.data is None:
            self.handed_out, self.left = self.count, 0
        else:
            self.left -= len(rows)
