"""Batches as bytes, where a backend makes the input blob of them: a quarter crosses the bus."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from data_prep import datum
from data_prep.batch import RecordSource
from data_prep.prefetch import BatchReader
from data_prep.transform import TransformSpec
from prototxt_gen.errors import DataError
from runtime.backend.base import Backend
from runtime.core.synced_memory import SyncedMemory


def as_bytes(spec: TransformSpec, source: RecordSource, backend: Backend) -> TransformSpec:
    """The spec, raw where backend, mean and records permit it.

    A mean image stays with the host, which knows where each crop lay in it.
    """
    if backend.input_batch is None or spec.mean_image is not None or not len(source):
        return spec
    where = source.key(0)
    try:
        first = datum.image_of(datum.parse(source.get(0), where), where, spec.mode)
    except DataError:
        # Whether such a record may be passed over is for the reader to say.
        return spec
    return dataclasses.replace(spec, raw=first.dtype == np.uint8)


def put_batch(
    reader: Any, position: tuple[int, int], images: npt.NDArray[Any], blob: SyncedMemory
) -> None:
    """Let a blob hold a batch, which begins at this iteration and image of the reader."""
    if images.dtype != np.uint8 or not isinstance(reader, BatchReader):
        blob.mutable_host()[...] = images
        return
    spec = reader.loader.spec
    words = reader.loader.draw(*position, len(images))
    offsets = spec.offsets(words, images.shape[1], "data")
    assert blob.backend.input_batch is not None
    blob.backend.input_batch(images, offsets, spec.scale, blob.mutable_dev())
