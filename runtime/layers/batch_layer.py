"""Base of the layers that read batches ahead: Data and ImageData. Caffe: base_data_layer.cpp."""

from __future__ import annotations

from typing import Any

from data_prep.box_database import BoxReader
from data_prep.datum import write_crop
from data_prep.philox import stream_of
from data_prep.prefetch import Batch, BatchReader
from data_prep.read_plan import DEFAULT_PREFETCH, ReadPlan, RecordSource
from data_prep.transform import Transform
from data_prep.transform_step import Settings
from prototxt_gen import proto
from prototxt_gen.errors import DataError, ProtoError, VerydeepError
from runtime.backend.cpu.native_image import image_kernel
from runtime.core.layer import Blobs, Layer


def take_transformer_seed(layer: Layer) -> None:
    """Draw the seed of a layer's transformer from the random stream, if Caffe draws one.

    The seed is not used, because crops and mirrors depend on the sample number; it is drawn so that
    later fillers get the values of Caffe. Caffe: DataTransformer::InitRand.
    """
    transform = layer.param.transform_param
    if transform.mirror or (layer.phase == proto.TRAIN and transform.crop_size):
        layer.context.rng.raw()


def take_thread_seed(layer: Layer) -> None:
    """Draw the seeds of a reading thread: of its transformer, again, and its own.

    Caffe: BasePrefetchingDataLayer::LayerSetUp.
    """
    take_transformer_seed(layer)
    layer.context.rng.raw()


class BatchLayer(Layer):
    """Reads the records of pass p at positions p*batch .. p*batch+batch-1, in an endless cycle.

    Without a crop the tops have the size of the first image of each pass, as in Caffe.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    reads_images = divides_batch = True

    reader: BatchReader | BoxReader | None = None
    batch = 0
    _fetched: tuple[int, Batch] | None = None

    def take_batch_size(self, batch_size: int) -> None:
        """Set the batch size of the prototxt.

        Raises:
            ProtoError: it is below 1.
        """
        if batch_size < 1:
            raise ProtoError(f"{self.label}: batch_size is {batch_size}; expected at least 1")
        self.batch = batch_size

    def transform(self, **settings: Any) -> Transform:
        """The transform of the layer's transform_param; `settings` may add those of the sidecar.

        Raises:
            ProtoError, DataError: see Transform.read.
        """
        train = self.phase == proto.TRAIN
        return Transform.read(Settings(self.param.transform_param, train, self.label, **settings))

    def plan(
        self, source: RecordSource, shuffle: bool = False, prefetch: int = DEFAULT_PREFETCH
    ) -> ReadPlan:
        """The plan of a layer of images, with the sidecar's options. Paper: 3.1.

        Raises:
            ProtoError, DataError: see Transform.read and ReadPlan.
        """
        context = self.context
        options, window = context.data, context.window
        return ReadPlan(
            source,
            self.transform(options=options, root=context.root),
            self.batch * window.passes,
            shuffle=shuffle or options.shuffle,
            seed=context.seed if options.seed is None else options.seed,
            stream=stream_of(self.param.name),
            window=(self.batch * window.low, self.batch * window.high),
            workers=options.workers,
            prefetch=options.prefetch or prefetch,
            on_error=options.on_error,
            as_bytes=self.backend.input_as_bytes,
            writer=image_kernel() or write_crop,
        )

    def shape_tops(self, top: Blobs, image: tuple[int, ...]) -> None:
        """Shape the tops for a batch of images. Shapes: `image` is (C,H,W)."""
        top[0].reshape((self.batch, *image))
        if len(top) > 1:
            top[1].reshape((self.batch,))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Keep the shapes that `layer_setup` or `fetch` set."""

    def fetch(self, top: Blobs) -> None:
        """Read the batch of the next pass if the sizes of the images vary.

        Raises:
            DataError: a record cannot be read.
        """
        if self.reader is not None and self.reader.sizes_vary(self.batch):
            self._fetched = self.context.pass_number, self._read(top)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the batch of this pass.

        Raises:
            DataError: a record cannot be read, or the net was built for its shapes only.
        """
        if self.reader is None:
            raise DataError(
                f"{self.label}: the net was built for its shapes only, without data; expected a "
                "net with data to run; build it with fill_weights"
            )
        fetched, self._fetched = self._fetched, None
        if fetched is not None and fetched[0] == self.context.pass_number:
            batch = fetched[1]
        else:
            batch = self._read(top)
        blob = top[0].data
        self.backend.input_batch(batch.data, batch.offsets, batch.scale, blob.mutable_dev())
        if len(top) > 1:
            top[1].data.mutable_host()[...] = batch.labels
        self.reader.recycle(batch)

    def _read(self, top: Blobs) -> Batch:
        """Read the batch of the next pass and shape the tops for it."""
        assert self.reader is not None
        iteration, index = divmod(self.context.pass_number, self.context.window.passes)
        try:
            batch = self.reader.read(iteration, index * self.batch, self.batch)
        except VerydeepError:
            with self.naming():
                raise
        self.shape_tops(top, batch.data.shape[1:])
        return batch

    @property
    def wait_seconds(self) -> float:
        """The time that the layer has waited for data. Units: seconds."""
        return 0.0 if self.reader is None else self.reader.wait_seconds

    def close(self) -> None:
        """Stop reading."""
        if self.reader is not None:
            self.reader.close()
