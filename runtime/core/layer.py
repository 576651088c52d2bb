"""Layer: computes top blobs from bottom blobs. Caffe: layer.hpp."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError, ShapeError, VerydeepError
from runtime.backend.base import Array, Backend
from runtime.core.blob import Blob
from runtime.core.context import RunContext
from runtime.core.description import OnnxStep, Places, PlainLayer, Window
from runtime.core.folding import Foldable
from runtime.process.not_copyable import NotCopyable


@dataclass(frozen=True)
class Arity:
    """The allowed number of bottoms or tops; no upper limit if `high` is None."""

    low: int
    high: int | None

    def __str__(self) -> str:
        """The text for error messages."""
        if self.high is None:
            return f"at least {self.low}"
        return f"exactly {self.low}" if self.low == self.high else f"{self.low} to {self.high}"

    def allows(self, count: int) -> bool:
        return count >= self.low and (self.high is None or count <= self.high)


def exactly(count: int) -> Arity:
    return Arity(count, count)


def at_least(count: int) -> Arity:
    return Arity(count, None)


def between(low: int, high: int) -> Arity:
    return Arity(low, high)


Blobs = Sequence[Blob]

_NOT_INHERITED = (
    *("only_ops", "can_rectify", "rectifies", "can_gate_relu", "to_onnx"),
    *("can_fold", "maps_channels"),
)


class Layer(Foldable, NotCopyable):
    """Base class of layers. Subclasses define `layer_setup`, `reshape`, `forward` and `backward`.

    The constructor only stores its arguments. `setup` calls `layer_setup` once, then `reshape`;
    `reshape` runs again before every forward pass.
    """

    type: ClassVar[str] = ""
    num_bottom: ClassVar[Arity] = exactly(1)
    num_top: ClassVar[Arity] = exactly(1)
    equal_num_bottom_top: ClassVar[bool] = False
    auto_top_blobs: ClassVar[bool] = False
    """The net creates missing tops, as for loss layers."""
    in_place: ClassVar[bool] = True
    """A top may be the same blob as a bottom, if its shape does not change."""
    can_rectify: ClassVar[bool] = False
    """The layer defines `forward_relu`. Not inherited."""
    is_loss: ClassVar[bool] = False
    """The first top has loss weight 1 unless the prototxt sets loss_weight."""
    only_ops: ClassVar[bool] = False
    """On a device, both passes only call ops or kernels of the backend, so they can be recorded and
    replayed. A pass that computes on the host writes its results by `mutable_host`, which prevents
    a replay. Not inherited.
    """
    host_only: bool = True
    """On a device, a pass computes on the host, so that blobs are copied. A class with bottoms is
    host_only if it is not `only_ops`; an instance may set it for its settings.
    """
    places: ClassVar[Places] = Places.UNDEFINED
    """The map from top positions to bottom positions."""
    value_bottoms: ClassVar[int | None] = None
    """The number of bottoms whose values are read; later ones give only their shape. None: all."""
    inserted_by_net: ClassVar[bool] = False
    """The net inserts the layer if several layers read one blob; summaries omit it."""
    applies_densely: ClassVar[bool] = False
    """On a larger image, the output at each position equals the output on the crop around it."""
    reads_scores: ClassVar[bool] = False
    """The first bottom holds class scores."""
    fully_connected: ClassVar[bool] = False
    """Every output is a weighted sum of all inputs of a sample."""
    weight_axes: ClassVar[int | None] = None
    """The number of axes of blobs[0], if all other weight blobs have one axis. None: not fixed."""
    filters_are_rows: ClassVar[bool] = False
    """A filter of blobs[0] has the weights of one row of an equivalent fully connected layer."""

    # For layers without bottoms, the inputs of the net.
    is_input: ClassVar[bool] = False
    """The caller writes the tops."""
    top_is_weight: ClassVar[bool] = False
    """The top is a weight of the layer, not input data."""
    batch_param: ClassVar[str] = ""
    """The field of LayerParameter whose message has the batch_size."""
    shape_param: ClassVar[str] = ""
    """The field of LayerParameter whose message has a `shape` for the tops."""
    reads_images: ClassVar[bool] = False
    """The first top, or with `shape_param` each top of 4 axes, holds images of any size."""
    divides_batch: ClassVar[bool] = False
    """The batch can be divided over shards: a sample depends only on its sample number."""

    keep_factors: Callable[[Array, Array], None] | None = None
    """If set, a layer with a `factor_depth` calls it with the factors (left, right) of the gradient
    left^T right of blobs[0], instead of adding the gradient.

    Shapes: left (factor_depth, a), right (factor_depth, b); blobs[0] (a, b).
    """

    def __init_subclass__(cls) -> None:
        """Reset attributes that describe the passes of one class, which a subclass may override."""
        super().__init_subclass__()
        for name in _NOT_INHERITED:
            if name not in vars(cls):
                setattr(cls, name, inspect.getattr_static(Layer, name))
        if "host_only" not in vars(cls):
            cls.host_only = not cls.only_ops and cls.num_bottom.high != 0

    def __init__(self, param: Any, phase: int, backend: Backend, context: RunContext) -> None:
        self.param = param
        self.phase = phase
        self.backend = backend
        self.context = context
        self.blobs: list[Blob] = []
        self.param_propagate_down: list[bool] = []
        self.loss_weights: list[float] = []
        self.shaped_for: tuple[tuple[int, ...], ...] = ()
        """The shapes of the bottoms in the last `reshape` of a net."""
        self._seeded: dict[int, tuple[int, ...]] = {}

    @property
    def label(self) -> str:
        """The layer's name and type, for error messages."""
        return f"layer '{self.param.name}' ({self.type})"

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """Prefix errors raised in the block with the layer's label.

        Raises:
            VerydeepError: of the same type as the error in the block.
        """
        try:
            yield
        except VerydeepError as error:
            if self.label in str(error):
                raise
            raise type(error)(f"{self.label}: {error}") from error

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Check the blob counts, call `layer_setup` and `reshape`, write the loss weights.

        Raises:
            ProtoError: wrong number of bottoms, tops or loss weights, or not allowed in place.
            ShapeError: the layer works in place and its top has another shape than its bottom.
        """
        self._check_counts(bottom, top)
        both = [blob for blob in bottom if any(blob is other for other in top)]
        if both and not self.in_place:
            raise ProtoError(f"{self.label}: cannot work in place; give its top another name")
        before = [blob.shape for blob in both]
        self.layer_setup(bottom, top)
        self.reshape(bottom, top)
        for blob, shape in zip(both, before):
            if blob.shape != shape:
                raise ShapeError(
                    f"{self.label}: cannot work in place, as blob '{blob.name}' of shape {shape} "
                    f"would become {blob.shape}; give its top another name"
                )
        self._set_loss_weights(top)

    def layer_setup(self, bottom: Blobs, top: Blobs) -> None:
        """Read the parameters; create and fill the weights. Runs once."""

    def fetch(self, top: Blobs) -> None:
        """Read the data of the next pass and shape the tops for it, before any layer runs.

        Called for layers without bottoms; layers with fixed shapes need not define it.
        """

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """Set the shapes of tops and buffers from the bottoms. Runs before every forward pass."""
        raise NotImplementedError(f"{self.label}: a layer must define reshape")

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the tops' data."""
        raise NotImplementedError(f"{self.label}: a layer must define forward")

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Overwrite the diffs of bottoms with propagate_down; add to the diffs of weights."""

    def forward_relu(self, bottom: Blobs, top: Blobs) -> None:
        """Compute the tops' data and apply max(x, 0). Called only if `can_rectify`."""
        raise NotImplementedError(f"{self.label}: must define forward_relu to rectify")

    def backward_relu(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """Compute the gradients through this layer and the ReLU before it.

        Called only if `can_gate_relu`.
        """
        raise NotImplementedError(f"{self.label}: must define backward_relu to gate a ReLU")

    def weighted_loss(self, top: Blobs) -> float:
        """The sum of all top elements times their loss weights, which are in the tops' diffs."""
        return sum(
            self.backend.vectors.dot(blob.data.dev(), blob.diff.dev())
            for blob, weight in zip(top, self.loss_weights)
            if weight
        )

    def allow_force_backward(self, bottom_index: int) -> bool:
        """Whether force_backward applies to this bottom; it does not apply to labels."""
        return not (self.is_loss and bottom_index == 1)

    def close(self) -> None:
        """Release files and threads."""

    def propagates_to_params(self, index: int) -> bool:
        """Whether the gradient of weight blob `index` is needed."""
        return index >= len(self.param_propagate_down) or self.param_propagate_down[index]

    def samples(self, blob: Blob, least: int = 0) -> int:
        """The first dimension of a blob.

        Raises:
            ShapeError: it has no axes, or fewer than `least` samples.
        """
        if not blob.num_axes or blob.shape[0] < least:
            raise ShapeError(
                f"{self.label}: blob '{blob.name}' has shape {blob.shape}; expected a first axis "
                f"of at least {least} samples; change the shape of the layer's input"
            )
        return blob.shape[0]

    def _check_counts(self, bottom: Blobs, top: Blobs) -> None:
        for word, arity, blobs in (
            ("bottom", self.num_bottom, bottom),
            ("top", self.num_top, top),
        ):
            if not arity.allows(len(blobs)):
                raise ProtoError(
                    f"{self.label}: expected {arity} {word} blob(s), got {len(blobs)}; "
                    f"change its {word} lines"
                )
        if self.equal_num_bottom_top and len(bottom) != len(top):
            raise ProtoError(
                f"{self.label}: expected as many tops as bottoms, "
                f"got {len(bottom)} bottom(s) and {len(top)} top(s)"
            )

    def _set_loss_weights(self, top: Blobs) -> None:
        given = [float(w) for w in self.param.loss_weight]
        if given and len(given) != len(top):
            raise ProtoError(
                f"{self.label}: expected no loss_weight or one for each of {len(top)} top(s), "
                f"got {len(given)}"
            )
        default = [1.0 if self.is_loss and i == 0 else 0.0 for i in range(len(top))]
        self.loss_weights = given or default
        self.seed_loss_weights(top)

    def seed_loss_weights(self, top: Blobs) -> None:
        """Write each loss weight into the diff of its top if the shape of the top has changed.

        These diffs are the start of the backward pass.
        """
        for index, (blob, weight) in enumerate(zip(top, self.loss_weights)):
            if weight and self._seeded.get(index) != blob.shape:
                blob.backend.memory.fill(blob.diff.mutable_dev(), weight)
                self._seeded[index] = blob.shape

    # Properties of the layer that other parts of the program use.

    @classmethod
    def divisible_batch(cls, param: Any) -> int | None:
        """The batch size of a LayerParameter of this type; None if it cannot be divided."""
        return int(getattr(param, cls.batch_param).batch_size) if cls.divides_batch else None

    @classmethod
    def set_batch(cls, param: Any, batch: int) -> None:
        """Set the batch size in a LayerParameter of this type, which has a `batch_param`."""
        getattr(param, cls.batch_param).batch_size = batch

    @classmethod
    def dense_form(cls, param: Any, bottom: tuple[int, ...]) -> Any | None:
        """A LayerParameter that applies a layer of this type densely; None if there is none.

        Shapes: `bottom` is the shape of the layer's bottom for one crop.

        Raises:
            UnsupportedError: the settings have no dense form.
        """
        return param if cls.applies_densely else None

    @classmethod
    def pools_globally(cls, param: Any) -> bool:
        """Whether a layer of this type with these settings reduces each plane to one number."""
        return False

    @classmethod
    def coupling(cls, param: Any) -> str | None:
        """Why the gradient of a batch is not the mean over its shards; None if it is.

        The text continues the sentence "the layer ...".
        """
        if cls.is_loss and param.loss_param.normalization == proto.LossParameter.NONE:
            return "does not divide its loss by the number of samples"
        if cls.is_loss and param.loss_param.HasField("ignore_label"):
            return "divides by the number of labels that are not ignored, which differs by shard"
        return None

    @property
    def rectifies(self) -> bool:
        """Whether the layer computes max(x, 0). Not inherited."""
        return False

    @property
    def can_gate_relu(self) -> bool:
        """Whether the layer defines `backward_relu`. Not inherited."""
        return False

    @property
    def algorithm(self) -> str:
        """The algorithm that the backend chose; empty if it has only one."""
        return ""

    @property
    def factor_depth(self) -> int | None:
        """The number of rows of the factors for `keep_factors`; None if the layer has none."""
        return None

    @property
    def index_limit(self) -> int | None:
        """The bottoms must hold integers below this limit; None if there is none."""
        return None

    @property
    def workspace_bytes(self) -> int:
        """Temporary memory that a pass needs on the backend. Units: bytes."""
        return 0

    @property
    def wait_seconds(self) -> float:
        """Total time spent waiting for data. Units: seconds."""
        return 0.0

    def spatial_window(self) -> Window | None:
        """The window over (N,C,H,W) bottoms of the current shape; None if the layer has none."""
        return None

    def multiply_adds(self, bottoms: int) -> int:
        """The multiply-adds of a forward pass, by the direct algorithm."""
        return 0

    def chance_loss(self, bottom: Blobs) -> float | None:
        """The unweighted loss if all classes have equal scores; None if it depends on the data."""
        return None

    def bvlc_form(self, param: Any) -> list[PlainLayer]:
        """The layer, in the phase TEST, as layers of BVLC Caffe; the layer itself by default.

        `param` is a copy of its LayerParameter, which may be changed.
        """
        return [PlainLayer(param, [blob.data.host() for blob in self.blobs])]

    def to_onnx(self, step: OnnxStep) -> list[str]:
        """Add the layer, in the phase TEST, to an ONNX graph; returns the values of its tops.

        Not inherited: a class that does not define it has no ONNX form.

        Raises:
            UnsupportedError: the settings have no ONNX form.
        """
        raise NotImplementedError(f"{self.label}: a layer with an ONNX form must define to_onnx")
