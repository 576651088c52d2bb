"""Nets with weights for predictions: `load` and `Model`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto, text
from prototxt_gen.errors import DeviceError, ProtoError, ShapeError, UsageError
from prototxt_gen.locate import located
from runtime.analysis.net_table import net_html, net_text
from runtime.analysis.summary import summarize
from runtime.analysis.summary_text import summary_text
from runtime.backend.base import Backend, HostArray
from runtime.backend.registry import create_backend
from runtime.bundle.bundle import Bundle, is_bundle
from runtime.bundle.preprocessing import Preprocessing
from runtime.core.blob import Blob
from runtime.core.context import RunContext
from runtime.inference.images import ImageLike, are_images, prepare
from runtime.net import Net
from runtime.weights.net_file import replaced_layers, require_all
from runtime.weights.net_weights import copy_trained_layers

Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[ImageLike]
_DEVICE = re.compile(r"(cpu|gpu|emu)(?::(\d{1,4}))?")


class Model(Net):
    """A net in phase TEST that predicts arrays. Several threads may use one model."""

    bundle: Bundle | None = None
    """The bundle that it was loaded from, with labels and preprocessing."""
    preprocessing: Preprocessing | None = None
    """How images are prepared; that of the bundle, or of `load`."""

    def predict(self, inputs: Inputs, outputs: Sequence[str] | None = None) -> dict[str, HostArray]:
        """Run the net on any number of samples, in batches of the prototxt's batch size.

        `inputs` is the array of the net's input blob, a dictionary of arrays for several inputs, or
        a list of images: paths, the bytes of image files, or arrays (H,W,C) of uint8 in RGB. Images
        are prepared as `preprocessing` describes.

        Shapes: inputs (N, ...) with the input blob's axes; the height and width may differ from the
            prototxt's if the net has no fully-connected layer. Results (N, ...), float32, by the
            names of `outputs` (default: the net's outputs). An output without an axis of samples,
            such as a loss, has one row for each batch.

        Raises:
            ProtoError: the net has no Input layer, or has no blob of a given name.
            ShapeError: an array does not have the shape of its input, or is empty.
            DataError: an image cannot be read or decoded.
            UsageError: images are given, and their preparation is unknown.
        """
        if are_images(inputs):
            return self._predict_images(inputs, outputs)
        arrays = self._arrays(inputs)
        names = self.outputs if outputs is None else list(outputs)
        for name in names:
            if name not in self.blobs:
                raise ProtoError(
                    f"net '{self.name}': no blob '{name}'; expected some of "
                    f"{', '.join(self.blobs)}; correct `outputs`"
                )
        count = len(next(iter(arrays.values())))
        with self.exclusive():
            shapes = {name: self.blobs[name].shape for name in self.inputs}
            size = max(1, min(shape[0] if shape else 1 for shape in shapes.values()))
            try:
                parts = [
                    self._batch({n: a[first : first + size] for n, a in arrays.items()}, names)
                    for first in range(0, count, size)
                ]
            finally:
                for name, shape in shapes.items():
                    self.blobs[name].reshape(shape)
                self.reshape()
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _predict_images(
        self, images: Sequence[ImageLike], outputs: Sequence[str] | None
    ) -> dict[str, HostArray]:
        """Prepare and predict one batch after the other, so that few images are in memory."""
        if self.preprocessing is None:
            raise UsageError(
                f"net '{self.name}': the preparation of images is unknown; expected a bundle, or "
                "`preprocessing` in runtime.load; give one, or prepared arrays"
            )
        shape = self.blobs[self.inputs[0]].shape if self.inputs else ()
        size = max(1, shape[0] if shape else 1)
        parts = []
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            arrays = [
                prepare(image, self.preprocessing, f"image {first + place}")
                for place, image in enumerate(batch)
            ]
            parts.append(self.predict(np.stack(arrays), outputs))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _batch(self, arrays: dict[str, HostArray], names: Sequence[str]) -> dict[str, HostArray]:
        for name, array in arrays.items():
            self.blobs[name].reshape(array.shape)
            self.blobs[name].data.mutable_host()[...] = array
        self.reshape()
        self.forward()
        return {name: np.atleast_1d(self.blobs[name].data.host()).copy() for name in names}

    def _arrays(self, inputs: Inputs) -> dict[str, HostArray]:
        """The checked inputs by name; see predict."""
        if not self.inputs:
            raise ProtoError(
                f"net '{self.name}': the net has no Input layer; expected a net that takes arrays, "
                "such as a deploy.prototxt; load that one"
            )
        given: Mapping[str, Any] = (
            inputs if isinstance(inputs, Mapping) else {self.inputs[0]: inputs}
        )
        if set(given) != set(self.inputs):
            raise ProtoError(
                f"net '{self.name}': expected an array for each of {', '.join(self.inputs)}, got "
                f"{', '.join(given) or 'none'}; give a dictionary of arrays by name"
            )
        arrays = {name: self._array(self.blobs[name], given[name]) for name in self.inputs}
        counts = {name: len(array) for name, array in arrays.items()}
        if len(set(counts.values())) != 1 or not min(counts.values()):
            raise ShapeError(
                f"net '{self.name}': arrays of {counts} samples; expected the same number in each, "
                "at least 1; give as many samples of each input"
            )
        return arrays

    def _array(self, blob: Blob, values: Any) -> HostArray:
        try:
            array = np.asarray(values, self.backend.dtype)
        except (TypeError, ValueError) as cause:
            raise ShapeError(
                f"input '{blob.name}': not an array of numbers ({cause}); expected shape "
                f"(N, {', '.join(map(str, blob.shape[1:]))}); stack images of one size"
            ) from cause
        if array.ndim != blob.num_axes or array.shape[1:2] != blob.shape[1:2]:
            raise ShapeError(
                f"input '{blob.name}': an array of shape {array.shape}; expected "
                f"(N, {', '.join(map(str, blob.shape[1:]))}); add the axis of samples, or reorder "
                "the axes to samples, channels, height, width"
            )
        return array

    def summary(self) -> str:
        """A table of the layers: shapes, parameters, multiply-adds, memory, receptive fields."""
        return summary_text(summarize(self))

    def __repr__(self) -> str:
        return net_text(self)

    def _repr_html_(self) -> str:
        return net_html(self)


def load(
    net: str | Path,
    weights: str | Path | None = None,
    *,
    device: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    allow_missing: bool = False,
    preprocessing: Preprocessing | None = None,
    gradients: bool = False,
) -> Model:
    """Load a net with its weights, in phase TEST.

    Args:
        net: a prototxt with an Input layer, such as deploy.prototxt, of any version of Caffe, or a
            bundle, which has its weights.
        weights: .caffemodel, .caffemodel.h5 or .npz; None keeps the values of the fillers, or those
            of the bundle.
        device: "cpu", "gpu" or "gpu:1", or "emu", the emulator of the GPU kernels.
        precision: "fp32"; "bf16", or on a GPU "tf32", to which operands are rounded.
        threads: number of CPU threads; None for all cores, or OMP_NUM_THREADS.
        allow_missing: accept layers without weights in the file; they keep the fillers' values.
        preprocessing: how images are prepared; None for that of the bundle.
        gradients: let `backward` compute the gradients of the inputs as well.

    Raises:
        ProtoError, ShapeError, UnsupportedError: the net cannot be built; names the line.
        SnapshotError: the weights cannot be read, or layers have no weights in the file.
        DeviceError: the device or the precision is not available.
    """
    bundle = Bundle.load(net) if is_bundle(net) else None
    if bundle is not None:
        net, weights = bundle.model, weights or bundle.weights
    backend = _open(device, precision, threads)
    param = text.read_net(net)
    param.force_backward = param.force_backward or gradients
    files = [] if weights is None else [weights]
    context = RunContext(replaced=replaced_layers(param, files))
    with located(net):
        model = Model(param, proto.TEST, backend, context)
    model.bundle = bundle
    if preprocessing is None and bundle is not None:
        preprocessing = bundle.preprocessing
    model.preprocessing = preprocessing
    if weights is not None:
        try:
            report = copy_trained_layers(model, weights)
            if not allow_missing:
                require_all([report], "allow_missing=True")
        except BaseException:
            model.close()
            raise
    return model


def _open(device: str, precision: str, threads: int | None) -> Backend:
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise DeviceError(
            f"device {device!r}: unknown; expected 'cpu', 'gpu', 'gpu:N' or 'emu'; correct it"
        )
    options: dict[str, Any] = {"precision": precision}
    if threads is not None and match[1] == "cpu":
        options["threads"] = threads
    return create_backend(match[1], int(match[2] or 0), **options)
