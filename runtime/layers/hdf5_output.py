"""HDF5Output: writes its bottoms to a file. Caffe: hdf5_output_layer.cpp."""

from __future__ import annotations

from collections.abc import Sequence

from prototxt_gen.errors import DataError, ShapeError
from runtime.layer import Blobs, Layer, exactly
from runtime.layer_factory import register


@register("HDF5Output")
class HDF5OutputLayer(Layer):
    """The data sets `data` and `label` hold the bottoms of the latest pass, as in Caffe.

    Shapes: data sets (N,C,H,W), missing axes 1.
    """

    num_bottom, num_top = exactly(2), exactly(0)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Remember the file's name."""
        self.path = self.context.path(self.param.hdf5_output_param.file_name)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Check that the bottoms agree."""
        if bottom[0].shape[:1] != bottom[1].shape[:1]:
            raise ShapeError(
                f"{self.label}: expected as many labels as samples, got {bottom[1].shape} for "
                f"{bottom[0].shape}"
            )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Write the file anew."""
        import h5py

        try:
            with h5py.File(self.path, "w") as file:
                for name, blob in zip(("data", "label"), bottom):
                    values = blob.data.host().reshape(blob.legacy_shape(self.label))
                    file.create_dataset(name, data=values)
        except OSError as cause:
            raise DataError(f"{self.label}: {self.path}: cannot be written: {cause}") from cause

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is no gradient."""
