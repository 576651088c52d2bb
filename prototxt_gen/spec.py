"""The checked specification of a net and its training, from which prototxts are generated.

docs/reference/spec.md describes its TOML form, which spec_toml.py reads and writes. Errors give
keys as in that form.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from prototxt_gen import vgg
from prototxt_gen.errors import ProtoError
from prototxt_gen.families import families
from prototxt_gen.sidecar import (
    FP32,
    INT_MAX,
    ColourPca,
    DataOptions,
    PlateauOptions,
    Scale,
    require,
    require_count,
    require_precision,
    smallest_and_largest,
)
from prototxt_gen.toml_tables import shown
from prototxt_gen.vgg import Convolution, Stages

INITIALISATIONS = ("gaussian", "from-net-a", "xavier", "msra", "paper-literal")
LR_POLICIES = ("plateau", "multistep", "poly", "fixed")
SOLVER_MODES = ("CPU", "GPU")
ILSVRC_PCA = ColourPca(
    eigenvalues=(55.46, 4.794, 1.148),
    eigenvectors=(
        (-0.5836, -0.5808, -0.5675),
        (-0.6948, -0.0045, 0.7192),
        (0.4203, -0.8140, 0.4009),
    ),
)
"""The commonly used colour components of the ILSVRC-2012 training set."""

_NET_A_KERNEL = "3x3"
_MOST_STAGES = INT_MAX.bit_length()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class LrnValues:
    """The constants of local response normalisation; `alpha` is divided by `local_size`, as in
    Caffe.
    """

    local_size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def __post_init__(self) -> None:
        require(self.local_size % 2 == 1, "lrn.local_size", "an odd number", self.local_size)
        require_count("lrn.local_size", self.local_size, 1)
        for key, value in (("alpha", self.alpha), ("beta", self.beta), ("k", self.k)):
            require(value > 0, f"lrn.{key}", "more than 0", value)


@dataclass(frozen=True)
class Initialisation:
    """How weights are initialised; biases are zero. `weights` is net A's file, for from-net-a."""

    method: str = "gaussian"
    weights: str | None = None
    first_std: float | None = None
    """The gaussian's deviation for conv1_1, whose inputs are pixels of up to 150, not near 1."""

    def __post_init__(self) -> None:
        is_known = self.method in INITIALISATIONS
        require(is_known, "init.method", f"one of {', '.join(INITIALISATIONS)}", self.method)
        positive = self.first_std is None or self.first_std > 0
        require(positive, "init.first_std", "more than 0", self.first_std)
        if (self.method == "from-net-a") != bool(self.weights):
            raise ProtoError(
                "init.weights: from-net-a requires weights, other methods take none; expected "
                f"{'a .caffemodel of net A' if not self.weights else 'none'} for method "
                f"{self.method!r}, got {shown(self.weights)}; give both or neither"
            )


@dataclass(frozen=True)
class Finetuning:
    """The weights of another training that this one starts from; its classifier is new."""

    weights: str
    """The file of weights, written to the solver's field of that name."""
    layer: str | None = None
    """The name of the classifier; None for its usual name with the suffix `-new`."""
    rate: float = 10.0
    """The factor of the learning rate of the classifier."""
    freeze: tuple[str, ...] = ()
    """The layers that are not trained; see layer_ranges.py."""

    def __post_init__(self) -> None:
        require(bool(self.weights), "finetune.weights", "a file of weights", self.weights)
        require(self.rate > 0, "finetune.rate", "more than 0", self.rate)
        valid = self.layer is None or bool(_NAME.fullmatch(self.layer))
        require(valid, "finetune.layer", "letters, digits, '_', '.' and '-'", self.layer)


@dataclass(frozen=True)
class TrainData:
    """The source of training images; `batch_size` is the batch of an iteration over all passes."""

    source: str = "ilsvrc12_train_lmdb"
    batch_size: int = 256
    mirror: bool = True
    options: DataOptions = field(
        default_factory=lambda: DataOptions(256, colour_shift=0.1, pca=ILSVRC_PCA, shuffle=True)
    )

    def __post_init__(self) -> None:
        require(bool(self.source), "data.train.source", "the path of an LMDB", self.source)
        require_count("data.train.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class TestData:
    """The source of the images on which the net is evaluated."""

    __test__ = False

    source: str = "ilsvrc12_val_lmdb"
    batch_size: int = 50
    options: DataOptions = field(default_factory=lambda: DataOptions(256))

    def __post_init__(self) -> None:
        require(bool(self.source), "data.test.source", "the path of an LMDB", self.source)
        require_count("data.test.batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class Data:
    """The images of both phases and the mean that is subtracted from them.

    Units: `mean_value` in grey levels (0-255); one for all channels, or three in the order B, G, R.
    """

    train: TrainData = field(default_factory=TrainData)
    test: TestData = field(default_factory=TestData)
    mean_value: tuple[float, ...] = vgg.MEAN_PIXEL
    mean_file: str | None = None

    def __post_init__(self) -> None:
        ok = len(self.mean_value) in (0, 1, 3) and all(0 <= v <= 255 for v in self.mean_value)
        expected = "one or three numbers (B, G, R) from 0 to 255, or none"
        require(ok, "data.mean_value", expected, self.mean_value)
        if self.mean_file and self.mean_value:
            raise ProtoError(
                "data.mean_file: two means; expected mean_file or mean_value, got "
                f"{self.mean_file!r} and {list(self.mean_value)}; remove one"
            )


@dataclass(frozen=True)
class SolverValues:
    """The solver's fields, with Caffe's names (paper: section 3.1)."""

    base_lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    lr_policy: str = "plateau"
    stepvalue: tuple[int, ...] = ()
    """Iterations at which multistep drops the rate; empty for the default of the generator."""
    power: float = 1.0
    """For poly: the rate is base_lr * (1 - iteration / max_iter) ^ power."""
    max_iter: int = 370_000
    iter_size: int = 1
    test_iter: int = 1000
    test_interval: int = 5000
    display: int = 20
    snapshot: int = 10_000
    random_seed: int = 1
    solver_mode: str = "CPU"
    """The device of training in original Caffe, and here without --gpu and --device."""

    def __post_init__(self) -> None:
        require(self.base_lr > 0, "solver.base_lr", "more than 0", self.base_lr)
        require(0 <= self.momentum < 1, "solver.momentum", "from 0 to below 1", self.momentum)
        require(self.weight_decay >= 0, "solver.weight_decay", "at least 0", self.weight_decay)
        require(self.power > 0, "solver.power", "more than 0", self.power)
        for key, value, choices in (
            ("lr_policy", self.lr_policy, LR_POLICIES),
            ("solver_mode", self.solver_mode, SOLVER_MODES),
        ):
            require(value in choices, f"solver.{key}", f"one of {', '.join(choices)}", value)
        for key in ("max_iter", "iter_size", "test_iter", "test_interval"):
            require_count(f"solver.{key}", getattr(self, key), 1)
        for key in ("display", "snapshot", "random_seed"):
            require_count(f"solver.{key}", getattr(self, key), 0)
        rising = all(a < b <= INT_MAX for a, b in zip((0, *self.stepvalue), self.stepvalue))
        expected = f"iterations from 1 to {INT_MAX}, in increasing order"
        require(rising, "solver.stepvalue", expected, self.stepvalue)


@dataclass(frozen=True)
class NetSpecification:
    """A net, and how it is trained."""

    name: str
    stages: Stages
    fc: tuple[int, ...] = vgg.FC_WIDTHS
    classes: int = vgg.CLASSES
    crop: int = vgg.CROP
    width: Fraction = Fraction(1)
    """The multiplier of all widths except the number of classes."""
    dropout: float = 0.5
    lrn: LrnValues = field(default_factory=LrnValues)
    init: Initialisation = field(default_factory=Initialisation)
    data: Data = field(default_factory=Data)
    solver: SolverValues = field(default_factory=SolverValues)
    schedule: PlateauOptions = field(default_factory=PlateauOptions)
    """When lr_policy "plateau" drops the rate; multistep also uses its factor and number."""
    shards: int | None = None
    precision: str = FP32
    family: str | None = None
    """A net of prototxt_gen/families, without stages; `fc` and `lrn` do not apply to it."""
    finetune: Finetuning | None = None

    def __post_init__(self) -> None:
        pattern = "letters, digits, '_', '.' and '-', as it becomes part of file names"
        require(bool(_NAME.fullmatch(self.name)), "name", pattern, self.name)
        if self.family is None:
            require(len(self.stages) >= 1, "stages", "at least one stage", len(self.stages))
        else:
            require(not self.stages, "stages", f"none for {self.family}", len(self.stages))
            names = ", ".join(families())
            require(self.family in families(), "family", f"one of {names}", self.family)
        most = f"at most {_MOST_STAGES} stages, each of which halves the image"
        require(len(self.stages) <= _MOST_STAGES, "stages", most, len(self.stages))
        for width in self.fc:
            require_count("fc", width, 1)
        require_count("classes", self.classes, 2)
        require_count("crop", self.crop, 1)
        require_count("parallel.shards", self.shards, 1)
        require_precision(self.precision)
        require(0 < self.width <= 64, "width", "more than 0, at most 64", str(self.width))
        require(0 <= self.dropout < 1, "dropout", "from 0 to below 1", self.dropout)
        _check_stages(self)
        _check_sizes(self)
        _check_net_a(self)
        _check_finetuning(self)

    def scaled(self, width: int) -> int:
        """A width times the multiplier, rounded to the nearest integer and at least 1."""
        return max(1, round(width * self.width))

    @property
    def train_batch(self) -> int:
        """The batch of one pass; an iteration has `iter_size` passes."""
        return self.data.train.batch_size // self.solver.iter_size


def _check_stages(spec: NetSpecification) -> None:
    for number, units in enumerate(spec.stages, start=1):
        first = units[0] if units else None
        if not isinstance(first, Convolution):
            raise ProtoError(
                f"stages: stage {number} does not start with a convolution; expected "
                f"'conv<kernel>-<channels>', got {[str(unit) for unit in units]}; add one"
            )


def _check_sizes(spec: NetSpecification) -> None:
    units = [unit for stage in spec.stages for unit in stage]
    widths = [unit.width for unit in units if isinstance(unit, Convolution)]
    widest = max([*widths, *spec.fc])
    fits = spec.scaled(widest) <= INT_MAX
    expected = f"a multiplier by which the widest layer, {widest}, is at most {INT_MAX}"
    require(fits, "width", expected, str(spec.width))
    least = 2 ** len(spec.stages)
    if spec.crop < least:
        raise ProtoError(
            f"crop: {spec.crop} pixels are too few for {len(spec.stages)} poolings, each of which "
            f"halves them; expected at least {least}, got {spec.crop}; enlarge the crop or use "
            "fewer stages"
        )
    for phase, options in (("train", spec.data.train.options), ("test", spec.data.test.options)):
        low, _ = smallest_and_largest(options.short_side)
        if options.short_side is not None and low < spec.crop:
            raise ProtoError(
                f"data.{phase}.short_side: the crop does not fit into the image; expected at least "
                f"the crop of {spec.crop}, got {low}; enlarge short_side or lower the crop"
            )
    batch, iter_size = spec.data.train.batch_size, spec.solver.iter_size
    if batch % iter_size:
        raise ProtoError(
            f"solver.iter_size: the batch does not divide into {iter_size} passes; expected a "
            f"divisor of data.train.batch_size = {batch}, got {iter_size}; change either"
        )


def _check_net_a(spec: NetSpecification) -> None:
    """Check that the layers of net A, which are copied by name, fit this net."""
    if spec.init.method != "from-net-a":
        return
    kernels = {
        f"conv{name}": f"{unit.kernel}x{unit.kernel}"
        for units in vgg.numbered_units(spec.stages)
        for name, unit in units
        if isinstance(unit, Convolution)
    }
    first = vgg.fc_number(spec.stages)
    kernels |= {f"fc{first + index}": _NET_A_KERNEL for index in range(len(spec.fc) + 1)}
    unfit = [name for name in vgg.INITIAL_NET.layers if kernels.get(name) != _NET_A_KERNEL]
    if unfit:
        got = (f"{name} of {kernels[name]}" if name in kernels else f"no {name}" for name in unfit)
        raise ProtoError(
            "init.method: net A's layers do not fit this net; expected "
            f"{', '.join(vgg.INITIAL_NET.layers)} with 3x3 kernels, got {', '.join(got)}; "
            "choose gaussian or xavier"
        )


def _check_finetuning(spec: NetSpecification) -> None:
    if spec.finetune is None:
        return
    if spec.family is not None:
        raise ProtoError(
            f"finetune: expected a net of stages, got {spec.family}; use `verydeep finetune`, "
            "which accepts every net"
        )
    if spec.init.weights:
        raise ProtoError(
            "finetune.weights: the training already starts from init.weights; expected one of "
            f"them, got {shown(spec.finetune.weights)} and {shown(spec.init.weights)}; remove one"
        )
    names = {f"fc{vgg.fc_number(spec.stages) + index}" for index in range(len(spec.fc) + 1)}
    names |= {f"conv{name}" for units in vgg.numbered_units(spec.stages) for name, _ in units}
    if spec.finetune.layer in names:
        raise ProtoError(
            f"finetune.layer: expected a name that no layer of the old net has, got "
            f"{shown(spec.finetune.layer)}; the old weights would be copied into it; rename it"
        )


def builtin_spec(name: str, crop: int = vgg.CROP) -> NetSpecification:
    """The specification of a built-in net, trained as the paper trains on ILSVRC-2012.

    Raises:
        ProtoError: there is no net of that name, or the crop is too small for it.
    """
    family = name if name in families() else None
    return NetSpecification(
        name=default_name(name),
        stages=() if family else vgg.stages_of(name),
        family=family,
        crop=crop,
        init=default_init(name),
        data=default_data(crop),
    )


def net_names() -> tuple[str, ...]:
    """The names of all built-in nets; the paper's are first."""
    return (*vgg.NETS, *families())


def default_name(net: str) -> str:
    """The name of a built-in net in its prototxts, such as VGG-D."""
    return net if net in families() else f"VGG-{net}"


def default_init(name: str | None) -> Initialisation:
    """Gaussian noise for net A and nets of at most its depth, as in the paper; else xavier.

    In deeper nets activations from such noise vanish before the loss. The paper initialises them
    from net A, whose weights may be unavailable; its alternative is Glorot and Bengio's procedure.
    """
    shallow = name in vgg.NETS and vgg.initial_net_for(name) is None
    return Initialisation("gaussian" if shallow else "xavier")


def default_data(crop: int) -> Data:
    """ILSVRC-2012, with a short side in the paper's proportion of 256 to 224 to the crop."""
    short_side = max(1, crop * 8 // 7)
    train = dataclasses.replace(TrainData().options, short_side=short_side)
    test = dataclasses.replace(TestData().options, short_side=paper_test_scale(short_side))
    return Data(train=TrainData(options=train), test=TestData(options=test))


def paper_test_scale(train: Scale) -> Scale:
    """The test scale Q of section 4.1 for a training scale: S, or the middle of its range."""
    return sum(train) // 2 if isinstance(train, tuple) else train


def with_values(spec: NetSpecification, values: Mapping[str, Any]) -> NetSpecification:
    """The specification with some values replaced, by dotted names such as "data.train.batch_size".

    All are replaced before the values are checked against each other.

    Raises:
        ProtoError: a value is out of range, or values contradict each other.
    """
    return NetSpecification(**_replaced(spec, values))


def _replaced(part: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass and its nested dataclasses, with dotted values replaced."""
    fields = dict(vars(part))
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            fields[head] = value
    for head, rest_values in inner.items():
        fields[head] = type(fields[head])(**_replaced(fields[head], rest_values))
    return fields
