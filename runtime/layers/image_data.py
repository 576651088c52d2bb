"""ImageData: batches from a list of image files. Caffe: image_data_layer.cpp."""

from __future__ import annotations

import dataclasses

from data_prep.image_list import ImageList
from data_prep.philox import stream_of
from data_prep.prefetch import BatchReader
from data_prep.sampler import make_sampler
from data_prep.transform import TransformSpec
from prototxt_gen.errors import ProtoError
from runtime.augmentation import with_options
from runtime.layer import Blobs, Layer, exactly
from runtime.layer_factory import register
from runtime.layers.transformer_seed import take_thread_seed, take_transformer_seed


@register("ImageData")
class ImageDataLayer(Layer):
    """Reads `source`, lines of `path label`, round and round.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    num_bottom, num_top = exactly(0), exactly(2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the list and start reading ahead."""
        param, options = self.param.image_data_param, self.context.data
        window = self.context.window
        self.batch = int(param.batch_size)
        if self.batch < 1:
            raise ProtoError(f"{self.label}: batch_size is {self.batch}; expected at least 1")
        if (param.new_height > 0) != (param.new_width > 0):
            raise ProtoError(
                f"{self.label}: new_height {param.new_height} and new_width {param.new_width}; "
                "expected both or neither"
            )
        size = (int(param.new_height), int(param.new_width)) if param.new_height else None
        listed = ImageList.read(
            self.context.path(param.source), self.context.root, bool(param.is_color), size
        )
        # Caffe puts the two strings together, whether or not a slash stands between them.
        names = tuple((param.root_folder + name, label) for name, label in listed.entries)
        source = dataclasses.replace(listed, entries=names)
        skip = self._draw_as_caffe()
        seed = self.context.seed if options.seed is None else options.seed
        spec = TransformSpec.from_param(self.param.transform_param, self.phase, self.label)
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
        top[0].reshape((self.batch, *self.reader.shape))
        top[1].reshape((self.batch,))

    def _draw_as_caffe(self) -> int:
        """Take from the filler stream what Caffe takes; how many images to skip is used."""
        param = self.param.image_data_param
        take_transformer_seed(self)
        if param.shuffle:
            self.context.rng.raw()
        skip = self.context.rng.raw() % int(param.rand_skip) if param.rand_skip else 0
        take_thread_seed(self)
        return skip

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """The shapes are fixed."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Take the next batch."""
        turn, place = divmod(self.context.pass_number, self.context.window.passes)
        images, labels = self.reader.read(turn, place * self.batch, self.batch)
        top[0].data.mutable_host()[...] = images
        top[1].data.mutable_host()[...] = labels

    @property
    def wait_seconds(self) -> float:
        """Time spent waiting for data so far."""
        return self.reader.wait_seconds

    def close(self) -> None:
        """Stop reading."""
        if hasattr(self, "reader"):
            self.reader.close()
