"""Net: pycaffe's net over the runtime's. Caffe: pycaffe.py, _caffe.cpp."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from prototxt_gen import proto, text
from prototxt_gen.errors import DeviceError, ShapeError
from runtime.analysis.net_table import net_html, net_text
from runtime.backend.base import HostArray
from runtime.core.blob_view import BlobVec, BlobView
from runtime.layers.memory_data import MemoryDataLayer
from runtime.net import Net as CoreNet
from runtime.process.not_copyable import NotCopyable
from runtime.pycaffe.errors import ArgumentError, ArrayError, CallError
from runtime.pycaffe.files import PathLike, require_file
from runtime.pycaffe.layer import layer_view
from runtime.pycaffe.session import SESSION
from runtime.solvers.nets import share_trained_layers
from runtime.weights import net_weights
from runtime.weights.net_file import replaced_layers
from runtime.weights.net_weights import CopyReport

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger("verydeep.pycaffe")

Arrays: TypeAlias = "dict[str, HostArray]"
Names: TypeAlias = "Sequence[str]"

_FORMS = (
    "Net(network_file, phase, level=0, stages=None, weights=None) or "
    "Net(network_file, weights_file, phase)"
)


class Net(NotCopyable):
    """A net in the session's mode, with the session's random stream.

    `core` is the runtime's own net, for operations that pycaffe does not have.

    Threads: calls of one net are serialised, and each is complete: inputs that are given to
    `forward` by name, the pass and the returned arrays belong together. In the thread that made the
    net the returned arrays are the blobs' own, as in pycaffe; once another thread has called the
    net, they are copies.
    """

    core: CoreNet

    @overload
    def __init__(
        self,
        network_file: PathLike,
        phase: int,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: PathLike | None = None,
    ) -> None: ...
    @overload
    def __init__(self, network_file: PathLike, weights: PathLike, phase: int, /) -> None: ...
    def __init__(self, network_file: PathLike, *args: Any, **kwargs: Any) -> None:
        """Build the net and load the weights, if any.

        Raises:
            MissingFileError: a file cannot be opened; also a RuntimeError.
            ArgumentError: the arguments match neither form; also a TypeError.
            ProtoError, ShapeError, UnsupportedError, DataError: the net cannot be built.
            SnapshotError: the weights cannot be read.
            DeviceError: the device is not available.
            Exception: an exception of a Python layer, unchanged.
        """
        phase, level, stages, weights = _read_arguments(args, kwargs)
        param = text.read_net(require_file(network_file))
        context = SESSION.context()
        if weights is not None:
            context.replaced = replaced_layers(param, [require_file(weights)])
        self._adopt(CoreNet(param, phase, SESSION.backend(), context, level, stages))
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def around(cls, core: CoreNet) -> Self:
        """The view of an existing net, such as a solver's."""
        net = cls.__new__(cls)
        net._adopt(core)
        return net

    def _adopt(self, core: CoreNet) -> None:
        self.core = core
        self._thread: int | None = threading.get_ident()
        self._layer_names = core.layer_names
        self._blob_names = list(core.blobs)
        self._blobs = [BlobView(blob) for blob in core.blobs.values()]
        self._index = {name: i for i, name in enumerate(self._blob_names)}
        self.layers = [layer_view(layer) for layer in core.layers]
        self.inputs = list(core.inputs)
        self.outputs = list(core.outputs)
        self._inputs = [self._index[name] for name in self.inputs]
        self._outputs = [self._index[name] for name in self.outputs]
        self.blobs: OrderedDict[str, BlobView] = OrderedDict(zip(self._blob_names, self._blobs))

    def __repr__(self) -> str:
        return net_text(self.core)

    def _repr_html_(self) -> str:
        return net_html(self.core)

    @property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """Layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers))

    @property
    def params(self) -> OrderedDict[str, BlobVec]:
        """Weights by layer: `params['conv1'][0]` are the filters, `[1]` the bias."""
        pairs = zip(self._layer_names, self.layers)
        return OrderedDict((name, layer.blobs) for name, layer in pairs if len(layer.blobs))

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """The loss weight of every blob; 0 for blobs that are no losses."""
        return OrderedDict((name, self.core.output_weight(name)) for name in self._blob_names)

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self.blob_loss_weights.values())

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The tops of every layer."""
        return self._names_by_layer(self._top_ids)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The bottoms of every layer."""
        return self._names_by_layer(self._bottom_ids)

    def _names_by_layer(self, ids: Callable[[int], list[int]]) -> OrderedDict[str, list[str]]:
        return OrderedDict(
            (name, [self._blob_names[blob] for blob in ids(i)])
            for i, name in enumerate(self._layer_names)
        )

    def _top_ids(self, layer: int) -> list[int]:
        return [self._index[name] for name in self.core.layers[layer].param.top]

    def _bottom_ids(self, layer: int) -> list[int]:
        return [self._index[name] for name in self.core.layers[layer].param.bottom]

    # Passes.

    def forward(
        self,
        blobs: Names | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: npt.ArrayLike,
    ) -> Arrays:
        """Run the layers from `start` to `end`, inclusive; inputs may be given by name.

        Returns the outputs (or the tops of `end`) and the blobs named in `blobs`. The arrays are
        the blobs' own and change with the next pass, unless several threads call the net.

        Shapes: keyword arguments have the shapes of their input blobs.

        Raises:
            CallError: an unknown layer or blob, or names that are not the net's inputs.
            ArrayError: an array has not the shape of its blob.
        """
        first = 0 if start is None else self._layer(start)
        last = len(self.layers) - 1 if end is None else self._layer(end)
        names = self.outputs if end is None else self.top_names[end]
        if kwargs:
            _check_names("forward: Input blob arguments", kwargs, self.inputs)
        with self.core.exclusive():
            for name, values in kwargs.items():
                _write(self._blob(name).data, values, f"forward: input '{name}'")
            self._forward(first, last)
            return self._result({n: self._blob(n).data for n in [*names, *(blobs or ())]})

    def backward(
        self,
        diffs: Names | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: npt.ArrayLike,
    ) -> Arrays:
        """Run the gradients from layer `start` down to `end`, inclusive.

        The diffs of the outputs may be given by name. Returns the diffs of the inputs (or of the
        bottoms of `end`) and of the blobs named in `diffs`.

        Shapes: keyword arguments have the shapes of their output blobs.

        Raises:
            CallError: an unknown layer or blob, or names that are not the net's outputs.
            ArrayError: an array has not the shape of its blob.
        """
        first = len(self.layers) - 1 if start is None else self._layer(start)
        last = 0 if end is None else self._layer(end)
        names = self.inputs if end is None else self.bottom_names[end]
        if kwargs:
            _check_names("backward: Top diff arguments", kwargs, self.outputs)
        with self.core.exclusive():
            for name, values in kwargs.items():
                _write(self._blob(name).diff, values, f"backward: diff of '{name}'")
            self._backward(first, last)
            return self._result({n: self._blob(n).diff for n in [*names, *(diffs or ())]})

    def _result(self, arrays: Arrays) -> Arrays:
        """The arrays of a pass: the blobs' own while one thread uses the net, else copies."""
        if self._thread == threading.get_ident():
            return arrays
        self._thread = None
        return {name: array.copy() for name, array in arrays.items()}

    def _forward(self, first: int, last: int) -> float:
        return self.core.forward(first, last)

    def _backward(self, first: int, last: int) -> None:
        self.core.backward(first, last)

    def _layer(self, name: str) -> int:
        if name not in self._layer_names:
            raise CallError(
                f"net '{self.core.name}': no layer '{name}'; expected one of "
                f"{', '.join(self._layer_names)}"
            )
        return self._layer_names.index(name)

    def _blob(self, name: str) -> BlobView:
        if name not in self.blobs:
            raise CallError(
                f"net '{self.core.name}': no blob '{name}'; expected one of "
                f"{', '.join(self._blob_names)}"
            )
        return self.blobs[name]

    # Passes over any number of samples.

    def forward_all(self, blobs: Names | None = None, **kwargs: HostArray) -> Arrays:
        """Run any number of samples batch by batch; returns copies of the outputs and `blobs`.

        The last batch is padded with zeros; the rows of the padding are removed from the results.

        Shapes: keyword arguments (N, ...) with the axes of their input blobs; results (N, ...). An
            output without an axis of samples, such as a loss, has one row for each batch.

        Raises:
            ArrayError: no arrays, or arrays of different lengths.
        """
        count = _count("forward_all", kwargs)
        outputs = _Batches([*self.outputs, *(blobs or ())])
        with self.core.exclusive():
            for arrays in self._batch(kwargs):
                outputs.append(self.forward(blobs=blobs, **arrays))
        return outputs.arrays(count)

    def forward_backward_all(
        self, blobs: Names | None = None, diffs: Names | None = None, **kwargs: HostArray
    ) -> tuple[Arrays, Arrays]:
        """Run any number of samples forward and backward; see forward_all.

        The keyword arguments are arrays of inputs, and diffs of outputs. Returns the outputs with
        `blobs`, and the diffs of the inputs with those of `diffs`.

        Raises:
            ArrayError: no arrays, or arrays of different lengths.
            CallError: names that are neither inputs nor outputs.
        """
        count = _count("forward_backward_all", kwargs)
        unknown = sorted(set(kwargs) - {*self.inputs, *self.outputs})
        if unknown:
            raise CallError(
                f"forward_backward_all: expected inputs and outputs of the net "
                f"({', '.join([*self.inputs, *self.outputs])}), got {', '.join(unknown)}"
            )
        outputs = _Batches([*self.outputs, *(blobs or ())])
        gradients = _Batches([*self.inputs, *(diffs or ())])
        inputs = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        tops = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        with self.core.exclusive():
            for arrays, top_diffs in zip_longest(inputs, tops, fillvalue=None):
                outputs.append(self.forward(blobs=blobs, **(arrays or {})))
                gradients.append(self.backward(diffs=diffs, **(top_diffs or {})))
        return outputs.arrays(count), gradients.arrays(count)

    def _batch(self, blobs: Mapping[str, HostArray]) -> Iterator[dict[str, Any]]:
        """Arrays cut into batches of the net's size; the last one is padded with zeros."""
        first = ([self.blobs[name] for name in self.inputs] or self._blobs)[:1]
        size = first[0].shape[0] if first and first[0].shape else 1
        count = len(next(iter(blobs.values()), ()))
        for start in range(0, count, size):
            yield {
                name: _padded(array[start : start + size], size) for name, array in blobs.items()
            }

    def reshape(self) -> None:
        """Propagate new shapes of the inputs through the net."""
        self.core.reshape()

    def clear_param_diffs(self) -> None:
        """Set the gradients of all weights to zero."""
        with self.core.exclusive():
            self.core.clear_param_diffs()

    def set_input_arrays(self, data: HostArray, labels: HostArray) -> None:
        """Set the images and labels of a net whose first layer is a MemoryData layer.

        Shapes: data (M,channels,height,width), labels (M,) or (M,1,1,1); M a multiple of the batch.

        Raises:
            CallError: the first layer has another type; also a RuntimeError.
            ArrayError: the arrays have other shapes; also a ValueError.
        """
        first = self.core.layers[0] if self.core.layers else None
        if not isinstance(first, MemoryDataLayer):
            raise CallError(
                f"net '{self.core.name}': set_input_arrays may only be called if the first layer "
                f"is a MemoryData layer; got {first.type if first else 'no layer'}"
            )
        try:
            with self.core.exclusive():
                first.set_input_arrays(data, labels)
        except ShapeError as cause:
            raise ArrayError(str(cause)) from cause

    _set_input_arrays = set_input_arrays

    # Hooks: each is called with a layer's index.

    def before_forward(self, run: Callable[[int], None]) -> None:
        self.core.before_forward.append(run)

    def after_forward(self, run: Callable[[int], None]) -> None:
        self.core.after_forward.append(run)

    def before_backward(self, run: Callable[[int], None]) -> None:
        self.core.before_backward.append(run)

    def after_backward(self, run: Callable[[int], None]) -> None:
        self.core.after_backward.append(run)

    # Weights.

    def copy_from(self, weights: PathLike) -> CopyReport:
        """Copy weights from a file of any format into the layers of the same names.

        Raises:
            MissingFileError: the file cannot be opened; also a RuntimeError.
            SnapshotError, ShapeError: the file is damaged, or a layer has other shapes in it.
        """
        with self.core.exclusive():
            return net_weights.copy_trained_layers(self.core, require_file(weights))

    def load_hdf5(self, weights: PathLike) -> None:
        """Copy weights from an HDF5 file; see copy_from."""
        self.copy_from(weights)

    def share_with(self, other: Net) -> None:
        """Share the weights of the other net's layers of the same names.

        Raises:
            DeviceError: the other net is on another device.
        """
        if other.core.backend is not self.core.backend:
            raise DeviceError(
                f"net '{self.core.name}': cannot share weights with a net on another device; "
                f"expected {self.core.backend.name}, got {other.core.backend.name}; make both in "
                "one mode"
            )
        with self.core.exclusive():
            share_trained_layers(self.core, other.core)

    def save(self, path: PathLike) -> None:
        """Write the weights as .caffemodel, under any file name, as pycaffe does.

        Raises:
            SnapshotError: the file cannot be written.
        """
        with self.core.exclusive():
            net_weights.save(self.core, path, fmt=net_weights.CAFFEMODEL)

    def save_hdf5(self, path: PathLike) -> None:
        """Write the weights as .caffemodel.h5; see save."""
        with self.core.exclusive():
            net_weights.save(self.core, path, fmt=net_weights.HDF5)

    def close(self) -> None:
        """Stop background readers; the garbage collection of the net does the same."""
        self.core.close()


_Arguments: TypeAlias = "tuple[int, int, tuple[str, ...], PathLike | None]"


def _read_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Arguments:
    """Phase, level, stages and weights of either form.

    Raises:
        ArgumentError: they match neither.
    """
    if len(args) == 2 and not kwargs and isinstance(args[0], (str, os.PathLike)):
        log.warning(
            "Net(network_file, weights_file, phase) is deprecated in pycaffe; "
            "use Net(network_file, phase, weights=weights_file)"
        )
        return _named(args[1], weights=args[0])
    try:
        return _named(*args, **kwargs)
    except TypeError as cause:
        fault = str(cause).replace("_named() ", "")
        raise ArgumentError(f"Net: {fault}; expected {_FORMS}") from cause


def _named(
    phase: int,
    level: int = 0,
    stages: Sequence[str] | None = None,
    weights: PathLike | None = None,
) -> _Arguments:
    if phase not in (proto.TRAIN, proto.TEST):
        raise ArgumentError(
            f"Net: phase is {phase!r}; expected TRAIN (0) or TEST (1), in one of the forms {_FORMS}"
        )
    if isinstance(stages, str):
        raise ArgumentError(
            f"Net: stages is the string {stages!r}; expected a list of names: stages=[{stages!r}]"
        )
    return int(phase), int(level), tuple(stages or ()), weights


def _check_names(subject: str, given: Mapping[str, Any], known: Names) -> None:
    if set(given) != set(known):
        raise CallError(
            f"{subject} do not match the net's; expected {', '.join(known) or 'none'}, "
            f"got {', '.join(given)}; give each once, by name"
        )


def _write(target: HostArray, values: npt.ArrayLike, subject: str) -> None:
    array = np.asarray(values)
    if array.shape[:1] != target.shape[:1]:
        raise ArrayError(
            f"{subject} is not batch sized; expected {target.shape[:1]} along the first axis, "
            f"got shape {array.shape}; reshape the input blob first, or use forward_all"
        )
    try:
        target[...] = array
    except (ValueError, TypeError) as cause:
        raise ArrayError(
            f"{subject}; expected numbers of shape {target.shape}, got {array.dtype} of shape "
            f"{array.shape}; reshape one of them"
        ) from cause


class _Batches:
    """Copies of named arrays, batch after batch."""

    def __init__(self, names: Names) -> None:
        self._parts: dict[str, list[HostArray]] = {name: [] for name in names}

    def append(self, arrays: Mapping[str, HostArray]) -> None:
        """Copy the arrays of a batch; a number such as a loss becomes one row."""
        for name, parts in self._parts.items():
            parts.append(np.atleast_1d(arrays[name]).copy())

    def arrays(self, count: int) -> Arrays:
        """All batches in one array each, of at most `count` rows."""
        return {
            name: np.concatenate(parts)[:count] if parts else np.empty(0, np.float32)
            for name, parts in self._parts.items()
        }


def _count(subject: str, arrays: Mapping[str, HostArray]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ArrayError(
            f"{subject}: expected at least one array, and as many images in each; got "
            f"{lengths or 'none'}"
        )
    return next(iter(lengths.values()))


def _padded(rows: HostArray, size: int) -> HostArray:
    if len(rows) == size:
        return rows
    padding = np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, padding])
