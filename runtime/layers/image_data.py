"""ImageData: batches from a list of image files. Caffe: image_data_layer.cpp."""

from __future__ import annotations

import dataclasses
import os

from data_prep.image_list import ImageList
from data_prep.philox import stream_of
from data_prep.prefetch import BatchReader
from data_prep.sampler import make_sampler
from data_prep.transform import TransformSpec
from prototxt_gen.errors import ProtoError
from prototxt_gen.regular_file import check_below
from runtime.core.layer import Blobs, exactly
from runtime.core.layer_registry import register
from runtime.layers.augmentation import with_options
from runtime.layers.batch_layer import BatchLayer
from runtime.layers.transformer_seed import take_thread_seed, take_transformer_seed


@register("ImageData")
class ImageDataLayer(BatchLayer):
    """Reads the images that `source` lists, lines of `path label`. See BatchLayer.

    With `confine_lists` in the context, images lie below the folder that `root_folder` begins with,
    or else below the working folder.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    batch_param = "image_data_param"
    reads_images = divides_batch = True

    num_bottom, num_top = exactly(0), exactly(2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the list and start reading ahead."""
        param, options = self.param.image_data_param, self.context.data
        window = self.context.window
        self.take_batch_size(int(param.batch_size))
        if (param.new_height > 0) != (param.new_width > 0):
            raise ProtoError(
                f"{self.label}: new_height {param.new_height} and new_width {param.new_width}; "
                "expected both or neither"
            )
        size = (int(param.new_height), int(param.new_width)) if param.new_height else None
        with self.naming():
            source = self._list(size)
        skip = self._draw_as_caffe()
        seed = self.context.seed if options.seed is None else options.seed
        spec = TransformSpec.from_param(self.param.transform_param, self.phase, self.label)
        with self.naming():
            self.reader = BatchReader(
                source.from_record(skip),
                self.batch * window.passes,
                with_options(spec, options, self.context),
                make_sampler(len(source), bool(param.shuffle) or options.shuffle, seed),
                seed,
                stream_of(self.param.name),
                workers=options.workers,
                window=(self.batch * window.low, self.batch * window.high),
                on_error=options.on_error,
            )
        self.shape_tops(top, self.reader.shape)

    def _list(self, size: tuple[int, int] | None) -> ImageList:
        """The images of the list, with `root_folder` put before each name.

        Caffe puts the two strings together, whether or not a slash stands between them.
        """
        param, root = self.param.image_data_param, self.context.root
        listed = ImageList.read(self.context.path(param.source), root, bool(param.is_color), size)
        names = tuple((param.root_folder + name, label) for name, label in listed.entries)
        if self.context.confine_lists:
            folder = root / os.path.dirname(param.root_folder)  # noqa: PTH120
            check_below((root / name for name, _ in names), folder)
        return dataclasses.replace(listed, entries=names)

    def _draw_as_caffe(self) -> int:
        """Take from the filler stream what Caffe takes; how many images to skip is used."""
        param = self.param.image_data_param
        take_transformer_seed(self)
        if param.shuffle:
            self.context.rng.raw()
        skip = self.context.rng.raw() % int(param.rand_skip) if param.rand_skip else 0
        take_thread_seed(self)
        return skip
