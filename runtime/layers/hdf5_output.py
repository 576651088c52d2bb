"""HDF5Output: writes its bottoms to a file. Caffe: hdf5_output_layer.cpp."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prototxt_gen.errors import DataError, ShapeError
from runtime.core.hdf5_file import atomic_hdf5
from runtime.core.layer import Blobs, Layer, exactly
from runtime.core.layer_registry import register

_ATTRIBUTE, _WRITER = "writer", b"verydeep HDF5Output"


@register("HDF5Output")
class HDF5OutputLayer(Layer):
    """Writes the bottoms of each pass to the data sets `data` and `label`, as Caffe.

    The attribute `writer` marks the files of this layer: other files are not replaced, unless
    `force` is set in the context.

    Shapes: data sets (N,C,H,W), missing axes 1.
    """

    num_bottom, num_top = exactly(2), exactly(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the file may be written.

        Raises:
            DataError: another program wrote it.
        """
        self.path = self.context.path(self.param.hdf5_output_param.file_name)
        if self.context.fill_weights and not self.context.force and not _is_free(self.path):
            raise DataError(
                f"{self.label}: file_name {self.path}: exists, and this program did not write it; "
                "expected a new name, or a file of an HDF5Output layer; use another name, remove "
                "the file, or replace it with --force"
            )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the bottoms agree.

        Raises:
            ShapeError: the numbers of samples and labels differ.
        """
        if bottom[0].shape[:1] != bottom[1].shape[:1]:
            raise ShapeError(
                f"{self.label}: expected as many labels as samples, got {bottom[1].shape} for "
                f"{bottom[0].shape}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Replace the file.

        Raises:
            DataError: it cannot be written.
        """
        try:
            with atomic_hdf5(self.path, DataError, durable=False) as file:
                file.attrs[_ATTRIBUTE] = np.bytes_(_WRITER)
                for name, blob in zip(("data", "label"), bottom):
                    values = blob.data.host().reshape(blob.legacy_shape(self.label))
                    file.create_dataset(name, data=values)
        except DataError as cause:
            raise DataError(f"{self.label}: {cause}") from cause

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Do nothing: there is no gradient."""


def _is_free(path: Path) -> bool:
    """Whether a file is missing, empty, or written by this layer."""
    import h5py

    try:
        if not os.path.lexists(path):
            return True
        if not path.is_file():
            return False
        if not path.stat().st_size:
            return True
        with h5py.File(path, "r") as file:
            # An attribute of another type could be very large.
            if file.attrs.get_id(_ATTRIBUTE).dtype != np.dtype(f"S{len(_WRITER)}"):
                return False
            return bool(file.attrs[_ATTRIBUTE] == _WRITER)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return False
