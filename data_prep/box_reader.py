"""Batches of boxes that move as their images do: rescaled, cropped and mirrored alike.

Nothing passes between the two: what happens to an image is a function of its sample number, and so
is what happens to its box, on whatever shard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep import datum as datums
from data_prep.batch import ImageLoader, RecordSource, empty_batch
from data_prep.box_records import read_record, stored_size
from data_prep.box_transform import placement, to_centres
from data_prep.transform import TransformSpec
from prototxt_gen.errors import DataError, ProtoError


class BoxReader:
    """Reads boxes as centre x, centre y, width, height in pixels of the crop.

    `spec` is what the layer of boxes does itself: value = (pixels - mean) * scale.

    Raises:
        ProtoError: there are no images to follow, or `spec` crops or mirrors by itself.
        DataError: there are not as many boxes as images.
    """

    shape = (4, 1, 1)

    def __init__(
        self, source: RecordSource, images: ImageLoader | None, spec: TransformSpec, where: str
    ) -> None:
        if images is None:
            raise ProtoError(
                f"{where}: boxes of which images? expected a Data layer of images before the layer "
                "of boxes, got none; change the order, or leave `boxes` out of the sidecar"
            )
        if spec.crop_size or spec.mirror:
            raise ProtoError(
                f"{where}: crop_size and mirror are the images'; expected a transform_param with "
                "mean_value and scale at most; remove them, the boxes follow by themselves"
            )
        if len(source) != len(images.source):
            raise DataError(
                f"{where}: {len(source)} boxes for {len(images.source)} images; expected one for "
                "each; make both databases again from one list"
            )
        self.wait_seconds = 0.0
        self._source, self._images, self._spec = source, images, spec

    def read(
        self, iteration: int, first_index: int, count: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return boxes first_index .. first_index+count-1 of an iteration, and their labels.

        Shapes: boxes (count,4,1,1), labels (count,).

        Raises:
            DataError: a record that is no box, or not the box of its image.
        """
        boxes, labels = empty_batch(count, self.shape)
        words = self._images.draw(iteration, first_index, count)
        for row in range(count):
            position = iteration * self._images.batch_size + first_index + row
            record = self._images.sampler.record_at(position)
            labels[row] = self._load(record, words[row], boxes[row])
        return boxes, labels

    def _load(self, record: int, words: npt.NDArray[np.uint32], out: npt.NDArray[Any]) -> int:
        key = self._source.key(record)
        where = f"record {key}"
        image = self._images.source.key(record)
        if key != image:
            raise DataError(
                f"{where}: beside the image {image}; expected its box, with the same key; make "
                "both databases again from one list"
            )
        box, label = read_record(self._source.get(record), where)
        datum = datums.parse(self._images.source.get(record), where)
        moved = placement(self._images.spec, words, *stored_size(datum, where)).to_crop(box)
        values = to_centres(moved).astype(np.float32).reshape(1, 1, 4)
        self._spec.apply(values, words, out, where)
        return label

    def close(self) -> None:
        """Nothing is kept open but the database, which closes with its last reader."""
