"""MemoryData: batches from arrays in memory. Caffe: memory_data_layer.cpp."""

from __future__ import annotations

import numpy as np

from prototxt_gen.errors import DataError, ProtoError, ShapeError
from runtime.backend.base import HostArray
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register
from runtime.layers.batch_layer import take_transformer_seed


@register("MemoryData")
class MemoryDataLayer(Layer):
    """Reads the arrays set by `set_input_arrays` batch by batch, in an endless cycle.

    Shapes: tops (batch,channels,height,width) and labels (batch,).
    """

    batch_param = "memory_data_param"

    num_bottom, num_top = exactly(0), exactly(2)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the sizes.

        Raises:
            ProtoError: a size is below 1.
        """
        take_transformer_seed(self)
        param = self.param.memory_data_param
        self.shape = tuple(
            int(d) for d in (param.batch_size, param.channels, param.height, param.width)
        )
        if min(self.shape) < 1:
            raise ProtoError(
                f"{self.label}: batch_size, channels, height, width are {self.shape}; "
                "expected at least 1 each"
            )
        self.images: HostArray | None = None
        self.labels: HostArray | None = None
        self.first_pass = 0

    def set_input_arrays(self, images: HostArray, labels: HostArray) -> None:
        """Set the arrays to read.

        Shapes: images (M,channels,height,width), labels (M,) or (M,1,1,1); M a multiple of batch.

        Raises:
            ShapeError: the shapes differ from these.
            DataError: the arrays are not numbers.
        """
        values, numbers = self._numbers(images, "images"), self._numbers(labels, "labels")
        if values.shape[1:] != self.shape[1:] or not len(values) or len(values) % self.shape[0]:
            raise ShapeError(
                f"{self.label}: images of shape {values.shape}; expected (M, "
                f"{', '.join(map(str, self.shape[1:]))}) with M a multiple of {self.shape[0]}"
            )
        if numbers.size != len(values):
            raise ShapeError(
                f"{self.label}: {numbers.size} labels; expected {len(values)}, one for each image"
            )
        self.images, self.labels = values, numbers.ravel()
        self.first_pass = self.context.pass_number

    def _numbers(self, values: HostArray, name: str) -> HostArray:
        try:
            return np.asarray(values, np.float32)
        except (TypeError, ValueError) as cause:
            raise DataError(
                f"{self.label}: {name} are not numbers: {cause}; expected an array of floats"
            ) from cause

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the shapes given by the parameters."""
        top[0].reshape(self.shape)
        top[1].reshape(self.shape[:1])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Copy the next batch.

        Raises:
            DataError: no arrays are set.
        """
        if self.images is None or self.labels is None:
            raise DataError(f"{self.label}: no data; call set_input_arrays before forward")
        batches = len(self.images) // self.shape[0]
        start = (self.context.pass_number - self.first_pass) % batches * self.shape[0]
        rows = slice(start, start + self.shape[0])
        top[0].data.mutable_host()[...] = self.images[rows]
        top[1].data.mutable_host()[...] = self.labels[rows]
