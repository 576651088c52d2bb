"""ImageData: batches from a list of image files. Caffe: image_data_layer.cpp."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from data_prep.image_list import ImageList
from data_prep.prefetch import BatchReader
from prototxt_gen.errors import ProtoError
from prototxt_gen.regular_file import check_below
from runtime.core.layer import Blobs, exactly
from runtime.core.layer_registry import register
from runtime.layers.batch_layer import BatchLayer, take_thread_seed, take_transformer_seed


@register("ImageData")
class ImageDataLayer(BatchLayer):
    """Reads the images of the list `source`, whose lines are `path label`. See BatchLayer.

    A `source` that is a folder with a folder for each class gives all its images, sorted by class.

    With `confine_lists` in the context, the images must be below the folder in `root_folder`, or
    below the working folder if it has none.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    batch_param = "image_data_param"

    num_bottom, num_top = exactly(0), exactly(2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the list and start reading ahead.

        Raises:
            ProtoError: only one of new_height and new_width is given.
            DataError: the list or its first image cannot be read.
        """
        param = self.param.image_data_param
        self.take_batch_size(int(param.batch_size))
        if (param.new_height > 0) != (param.new_width > 0):
            raise ProtoError(
                f"{self.label}: new_height {param.new_height} and new_width {param.new_width}; "
                "expected both or neither"
            )
        size = (int(param.new_height), int(param.new_width)) if param.new_height else None
        with self.naming():
            source = self._list(size).from_record(self._draw_as_caffe())
            self.reader = BatchReader(self.plan(source, shuffle=bool(param.shuffle)))
        self.shape_tops(top, self.reader.shape)

    def _list(self, size: tuple[int, int] | None) -> ImageList:
        """The images of the list, with `root_folder` in front of each name.

        As in Caffe, the two strings are joined without a slash. If the source is a folder, it
        replaces `root_folder`.
        """
        param, root = self.param.image_data_param, self.context.root
        source = self.context.path(param.source)
        listed = ImageList.read(source, root, bool(param.is_color), size)
        above = f"{param.source}/" if Path(source).is_dir() else param.root_folder
        names = tuple((above + name, label) for name, label in listed.entries)
        if self.context.confine_lists:
            folder = root / os.path.dirname(above)  # noqa: PTH120
            check_below((root / name for name, _ in names), folder)
        return dataclasses.replace(listed, entries=names)

    def _draw_as_caffe(self) -> int:
        """Draw the numbers that Caffe draws from the filler stream; return how many images to skip.

        The other numbers are not used.
        """
        param = self.param.image_data_param
        take_transformer_seed(self)
        if param.shuffle:
            self.context.rng.raw()
        skip = self.context.rng.raw() % int(param.rand_skip) if param.rand_skip else 0
        take_thread_seed(self)
        return skip
