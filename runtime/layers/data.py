"""Data: batches from an LMDB. Caffe: data_layer.cpp, base_data_layer.cpp. Paper: 3.1."""

from __future__ import annotations

from data_prep.box_reader import BoxReader
from data_prep.lmdb_io import Reader
from data_prep.philox import stream_of
from data_prep.prefetch import BatchReader
from data_prep.sampler import make_sampler
from data_prep.transform import TransformSpec
from prototxt_gen import proto
from prototxt_gen.errors import DataError
from runtime.core.layer import Blobs, between, exactly
from runtime.core.layer_registry import register
from runtime.layers.augmentation import with_options
from runtime.layers.batch_layer import BatchLayer
from runtime.layers.byte_input import as_bytes
from runtime.layers.transformer_seed import take_thread_seed, take_transformer_seed


@register("Data")
class DataLayer(BatchLayer):
    """Reads the records of an LMDB in their order. See BatchLayer.

    What the sidecar adds (rescale, colour shift, shuffle, boxes) comes with the context. Crops and
    flips are drawn per sample number, not from Caffe's stream: no result depends on who decodes.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    batch_param = "data_param"
    reads_images = divides_batch = True

    num_bottom, num_top = exactly(0), between(1, 2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Open the database and start reading ahead."""
        param, transform = self.param.data_param, self.param.transform_param
        self.take_batch_size(int(param.batch_size))
        take_transformer_seed(self)
        take_thread_seed(self)
        if not self.context.fill_weights and transform.crop_size:
            self.shape_tops(top, (3, int(transform.crop_size), int(transform.crop_size)))
            return
        if not self.context.fill_weights and self._holds_boxes():
            self.shape_tops(top, BoxReader.shape)
            return
        if param.HasField("backend") and param.backend == proto.DataParameter.LEVELDB:
            raise DataError(
                f"{self.label}: backend LEVELDB is not offered; expected LMDB; convert the images "
                "with `verydeep convert_imageset` and say backend: LMDB"
            )
        spec = TransformSpec.from_param(transform, self.phase, self.label)
        source = Reader(self.context.path(param.source))
        with self.naming():
            self.reader = self._open(source, spec)
        self.shape_tops(top, self.reader.shape)

    def _open(self, source: Reader, spec: TransformSpec) -> BatchReader | BoxReader:
        options, window = self.context.data, self.context.window
        if self._holds_boxes():
            return BoxReader(source, self.context.images, spec, self.label)
        seed = self.context.seed if options.seed is None else options.seed
        prefetch = int(self.param.data_param.prefetch)
        reader = BatchReader(
            source,
            self.batch * window.passes,
            as_bytes(with_options(spec, options, self.context), source, self.backend),
            make_sampler(len(source), options.shuffle, seed),
            seed,
            stream_of(self.param.name),
            workers=options.workers,
            prefetch=options.prefetch or prefetch,
            window=(self.batch * window.low, self.batch * window.high),
            on_error=options.on_error,
        )
        self.context.images = reader.loader
        return reader

    def _holds_boxes(self) -> bool:
        return bool(self.context.data.boxes == self.param.name)
