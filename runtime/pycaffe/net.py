"""Net, as pycaffe's users know it, over the runtime's. Caffe: pycaffe.py, _caffe.cpp."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from prototxt_gen import text
from prototxt_gen.errors import DeviceError, ShapeError
from runtime.backend.base import HostArray
from runtime.core.blob_view import BlobVec, BlobView
from runtime.layers.memory_data import MemoryDataLayer
from runtime.net import Net as CoreNet
from runtime.process.not_copyable import NotCopyable
from runtime.pycaffe import net_batches
from runtime.pycaffe.errors import ArrayError, CallError
from runtime.pycaffe.layer import layer_view
from runtime.pycaffe.net_arguments import PathLike, read_arguments, require_file
from runtime.pycaffe.session import SESSION
from runtime.solvers.nets import share_trained_layers
from runtime.weights import net_weights
from runtime.weights.net_file import replaced_layers

if TYPE_CHECKING:
    from typing_extensions import Self

Arrays = dict[str, HostArray]
Names = Sequence[str]


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
            MissingFileError, ArgumentError: also RuntimeError and TypeError, as in pycaffe.
            ProtoError, ShapeError, UnsupportedError, DataError, SnapshotError, DeviceError: what
                does not fit, and where; what a Python layer raises comes as it is.
        """
        given = read_arguments(args, kwargs)
        param = text.read_net(require_file(network_file))
        context = SESSION.context()
        if given.weights is not None:
            context.replaced = replaced_layers(param, [require_file(given.weights)])
        self._adopt(
            CoreNet(param, given.phase, SESSION.backend(), context, given.level, given.stages)
        )
        if given.weights is not None:
            self.copy_from(given.weights)

    @classmethod
    def around(cls, core: CoreNet) -> Self:
        """Show a net that is there already, such as a solver's."""
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

    # Looking.

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
        """The loss weight of every blob; 0 for what is no loss."""
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

    # Running.

    def forward(
        self,
        blobs: Names | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: npt.ArrayLike,
    ) -> Arrays:
        """Run the layers from `start` to `end`, inclusive; inputs may be given by name.

        Returns the outputs (or the tops of `end`) and the blobs that `blobs` names; the arrays are
        the blobs' own and change with the next pass, unless several threads call the net.

        Raises:
            CallError: names that are no layer's, or no inputs of the net.
            ArrayError: an array that does not fit its blob.
        """
        first = 0 if start is None else self._layer(start)
        last = len(self.layers) - 1 if end is None else self._layer(end)
        wanted = self.outputs if end is None else self.top_names[end]
        if kwargs:
            self._check_names("forward: Input blob arguments", kwargs, self.inputs)
        with self.core.exclusive():
            for name, values in kwargs.items():
                self._write(self._blob(name).data, values, f"forward: input '{name}'")
            self._forward(first, last)
            return self._result({n: self._blob(n).data for n in [*wanted, *(blobs or ())]})

    def backward(
        self,
        diffs: Names | None = None,
        start: str | None = None,
        end: str | None = None,
        **kwargs: npt.ArrayLike,
    ) -> Arrays:
        """Run the gradients from layer `start` down to `end`, inclusive.

        The diffs of the outputs may be given by name. Returns the diffs of the inputs (or of the
        bottoms of `end`) and of what `diffs` names.
        """
        first = len(self.layers) - 1 if start is None else self._layer(start)
        last = 0 if end is None else self._layer(end)
        wanted = self.inputs if end is None else self.bottom_names[end]
        if kwargs:
            self._check_names("backward: Top diff arguments", kwargs, self.outputs)
        with self.core.exclusive():
            for name, values in kwargs.items():
                self._write(self._blob(name).diff, values, f"backward: diff of '{name}'")
            self._backward(first, last)
            return self._result({n: self._blob(n).diff for n in [*wanted, *(diffs or ())]})

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

    @staticmethod
    def _check_names(what: str, given: Mapping[str, Any], known: Names) -> None:
        if set(given) != set(known):
            raise CallError(
                f"{what} do not match the net's; expected {', '.join(known) or 'none'}, "
                f"got {', '.join(given)}; give each once, by name"
            )

    @staticmethod
    def _write(target: HostArray, values: npt.ArrayLike, where: str) -> None:
        given = np.asarray(values)
        if given.shape[:1] != target.shape[:1]:
            raise ArrayError(
                f"{where} is not batch sized; expected {target.shape[:1]} along the first axis, "
                f"got shape {given.shape}; reshape the input blob first, or use forward_all"
            )
        try:
            target[...] = given
        except (ValueError, TypeError) as cause:
            raise ArrayError(
                f"{where}; expected numbers of shape {target.shape}, got {given.dtype} of shape "
                f"{given.shape}; reshape one of them"
            ) from cause

    def forward_all(self, blobs: Names | None = None, **kwargs: HostArray) -> Arrays:
        """Run any number of images, batch by batch; copies of all outputs come back."""
        with self.core.exclusive():
            return net_batches.forward_all(self, self._batch_size(), list(blobs or ()), kwargs)

    def forward_backward_all(
        self, blobs: Names | None = None, diffs: Names | None = None, **kwargs: HostArray
    ) -> tuple[Arrays, Arrays]:
        """Run any number of images forward and backward, batch by batch."""
        with self.core.exclusive():
            return net_batches.forward_backward_all(
                self, self._batch_size(), list(blobs or ()), list(diffs or ()), kwargs
            )

    def _batch_size(self) -> int:
        """The images of one pass: the first dimension of the first input, or of the first blob."""
        blobs = [self.blobs[name] for name in self.inputs] or self._blobs
        return blobs[0].shape[0] if blobs and blobs[0].shape else 1

    def reshape(self) -> None:
        """Carry new shapes of the inputs through the net."""
        self.core.reshape()

    def clear_param_diffs(self) -> None:
        """Zero the gradients of all weights."""
        with self.core.exclusive():
            self.core.clear_param_diffs()

    def set_input_arrays(self, data: HostArray, labels: HostArray) -> None:
        """Give a net that begins with a MemoryData layer its images and labels.

        Shapes: data (M,channels,height,width), labels (M,) or (M,1,1,1); M a multiple of the batch.
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

    def copy_from(self, weights: PathLike) -> None:
        """Copy weights from a file of any form into the layers of the same names."""
        with self.core.exclusive():
            net_weights.copy_trained_layers(self.core, require_file(weights))

    def load_hdf5(self, weights: PathLike) -> None:
        """Copy weights from an HDF5 file."""
        self.copy_from(weights)

    def share_with(self, other: Net) -> None:
        """Hold the weights of the other net's layers of the same names from now on."""
        if other.core.backend is not self.core.backend:
            raise DeviceError(
                f"net '{self.core.name}': cannot share weights with a net on another device; "
                f"expected {self.core.backend.name}, got {other.core.backend.name}; make both in "
                "one mode"
            )
        with self.core.exclusive():
            share_trained_layers(self.core, other.core)

    def save(self, path: PathLike) -> None:
        """Write the weights as .caffemodel, whatever the name, as pycaffe does."""
        with self.core.exclusive():
            net_weights.save(self.core, path, fmt=net_weights.CAFFEMODEL)

    def save_hdf5(self, path: PathLike) -> None:
        """Write the weights as .caffemodel.h5."""
        with self.core.exclusive():
            net_weights.save(self.core, path, fmt=net_weights.HDF5)

    def close(self) -> None:
        """Stop what the net reads in the background; it also ends with the net."""
        self.core.close()
