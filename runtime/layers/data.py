"""Data: batches from an LMDB or a data set.

Caffe: data_layer.cpp, base_data_layer.cpp. Paper: 3.1.
"""

from __future__ import annotations

from data_prep.box_database import BoxReader
from data_prep.image_files import ImageFiles, open_records
from data_prep.prefetch import BatchReader
from prototxt_gen import proto
from prototxt_gen.errors import DataError
from runtime.core.layer import Blobs, between, exactly
from runtime.core.layer_registry import register
from runtime.layers.batch_layer import BatchLayer, take_thread_seed, take_transformer_seed


@register("Data")
class DataLayer(BatchLayer):
    """Reads the records of an LMDB in their order, or the images of a data set. See BatchLayer.

    A `source` that is a data set, such as a folder with a folder for each class, gives its training
    images in TRAIN, in a new order in every epoch, and its held-out images in TEST.

    The options of the sidecar (rescaling, colour shift, shuffling, boxes) are in the context. Crops
    and mirrors depend on the sample number instead of Caffe's stream, so results do not depend on
    the decoding thread.

    Shapes: tops (batch,C,H,W) and labels (batch,).
    """

    batch_param = "data_param"

    num_bottom, num_top = exactly(0), between(1, 2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Open the database and start reading ahead.

        Raises:
            DataError: the source cannot be opened, or is a database of another type.
        """
        param, crop = self.param.data_param, int(self.param.transform_param.crop_size)
        self.take_batch_size(int(param.batch_size))
        take_transformer_seed(self)
        take_thread_seed(self)
        holds_boxes = self.context.data.boxes == self.param.name
        if not self.context.fill_weights and (crop or holds_boxes):
            self.shape_tops(top, (3, crop, crop) if crop else BoxReader.shape)
            return
        if param.HasField("backend") and param.backend == proto.DataParameter.LEVELDB:
            raise DataError(
                f"{self.label}: backend LEVELDB is not supported; expected LMDB; convert the "
                "images with `verydeep convert_imageset` and set backend: LMDB"
            )
        with self.naming():
            training = self.phase == proto.TRAIN
            source = open_records(self.context.path(param.source), training)
            if holds_boxes:
                images = self.context.images
                self.reader = BoxReader(source, images, self.transform(), self.label)
            else:
                # The images of a folder are sorted by class.
                shuffle = training and isinstance(source, ImageFiles)
                self.context.images = self.plan(source, shuffle, int(param.prefetch))
                self.reader = BatchReader(self.context.images)
        self.shape_tops(top, self.reader.shape)
