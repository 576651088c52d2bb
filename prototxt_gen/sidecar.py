"""The sidecar: the options that a solver prototxt has no fields for, in `solver.verydeep.toml`.

It belongs to `solver.prototxt`, and original Caffe trains from that alone. Without a sidecar, the
defaults are those of original Caffe.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.proto import Message
from prototxt_gen.sidecar_link import check_agreement, find_sidecar
from prototxt_gen.toml_tables import (
    Table,
    is_integer,
    is_number,
    read_toml,
    shown,
    toml_lines,
    toml_value,
)

SUFFIX = ".verydeep.toml"
STORED = "stored"
INT_MAX = 2**31 - 1
FLOAT_MAX = 3.4e38
MAX_SIDE = 65535
"""Pixels: JPEG's own limit."""
MOST_AHEAD = 1 << 10
"""Threads that decode, and batches that are prepared ahead."""
FP32 = "fp32"
BF16 = "bf16"
PRECISIONS = (FP32, "tf32", BF16)
"""What convolutions on a GPU round their operands to; sums stay in fp32."""
Scale = int | tuple[int, int] | None
"""A short side S in pixels, a range [Smin, Smax] to draw it from, or None: as stored."""


@dataclass(frozen=True)
class ColourPca:
    """Principal components of the pixels of a training set, for the colour shift.

    With normal draws a_i, a pixel is shifted by the sum of a_i * eigenvalues[i] * eigenvectors[i].

    Units: channels in B, G, R; an eigenvalue in grey levels (0-255) per unit of its draw.
    """

    eigenvalues: tuple[float, ...]
    eigenvectors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        sizes = [len(row) for row in (self.eigenvalues, *self.eigenvectors)]
        if sizes != [3, 3, 3, 3]:
            raise ProtoError(
                "pca: wrong sizes; expected 3 eigenvalues and 3 eigenvectors of 3 numbers, "
                f"got {sizes[0]} and {sizes[1:]}; take them from compute_image_mean"
            )
        for name, row in (
            ("eigenvalues", self.eigenvalues),
            *(("eigenvectors", row) for row in self.eigenvectors),
        ):
            for value in row:
                require(abs(value) <= FLOAT_MAX, f"pca.{name}", "finite numbers", value)


@dataclass(frozen=True)
class DataOptions:
    """How a phase's images are rescaled, shifted in colour, shuffled and read ahead.

    Crop, mean and mirror are in the prototxt's transform_param.
    """

    short_side: Scale = None
    """The isotropic rescale that precedes the crop (paper: S, section 3.1)."""
    colour_shift: float = 0.0
    """Standard deviation of the three draws of an image's shift; 0 for no shift."""
    pca: str | ColourPca | None = None
    """The components, or the path of a file written by compute_image_mean."""
    shuffle: bool = False
    """A new order of the records in every epoch, where Caffe reads them as stored."""
    seed: int | None = None
    """Seed of order and augmentation; None for the solver's random_seed."""
    workers: int | None = None
    """Decoders at work at once; None for the runtime's choice."""
    prefetch: int | None = None
    """Batches prepared ahead; None for the prototxt's data_param.prefetch."""
    on_error: str = "fatal"
    """A record that cannot be used ends the run (fatal) or is replaced by the next (skip)."""
    boxes: str | None = None
    """The Data layer whose records are boxes, moved as the images before it (see localisation)."""

    def __post_init__(self) -> None:
        low, high = smallest_and_largest(self.short_side)
        require(1 <= low <= high, "short_side", "S of 1 or more, or [Smin, Smax]", self.short_side)
        require(high <= MAX_SIDE, "short_side", f"at most {MAX_SIDE} pixels", self.short_side)
        require(self.colour_shift >= 0, "colour_shift", "at least 0", self.colour_shift)
        if self.colour_shift and not self.pca:
            raise ProtoError(
                "pca: missing; expected the colour components, which a colour_shift of "
                f"{self.colour_shift} needs, got none; give the file that compute_image_mean "
                "writes, or set colour_shift = 0"
            )
        require_count("seed", self.seed, 0)
        require_count("workers", self.workers, 1, MOST_AHEAD)
        require_count("prefetch", self.prefetch, 1, MOST_AHEAD)
        if self.boxes and self.on_error != "fatal":
            raise ProtoError(
                "on_error: boxes must keep their images; expected 'fatal' with boxes = "
                f"{shown(self.boxes)}, got {shown(self.on_error)}; recreate the databases without "
                "the records that cannot be used"
            )


@dataclass(frozen=True)
class PlateauOptions:
    """Dropping the learning rate when a test score stops improving (paper: section 3.1)."""

    metric: str = "accuracy/top1"
    """The test net's output blob that is watched."""
    mode: str = "max"
    """Whether more is better (max), as for an accuracy, or less (min), as for a loss."""
    factor: float = 0.1
    """What the rate is multiplied by."""
    patience: int = 5
    """Tests in a row without improvement before the rate drops."""
    min_delta: float = 0.0
    """An improvement is more than this."""
    max_drops: int = 3
    stop_after_last: bool = False
    """End when the score stops improving after the last drop, before max_iter."""

    def __post_init__(self) -> None:
        require(bool(self.metric), "metric", "the name of an output blob", self.metric)
        require(self.mode in ("max", "min"), "mode", "'max' or 'min'", self.mode)
        require(0 < self.factor < 1, "factor", "a number between 0 and 1", self.factor)
        require_count("patience", self.patience, 1)
        require(self.min_delta >= 0, "min_delta", "at least 0", self.min_delta)
        require_count("max_drops", self.max_drops, 0)


@dataclass(frozen=True)
class Sidecar:
    """The content of a sidecar; the defaults are those of original Caffe."""

    train: DataOptions = field(default_factory=DataOptions)
    test: DataOptions = field(default_factory=DataOptions)
    schedule: PlateauOptions | None = None
    """In force instead of the prototxt's lr_policy; None for the prototxt's."""
    shards: int | None = None
    """Equal parts in which a batch's gradient is computed; None for the runtime's choice."""
    weights_layers: tuple[str, ...] = ()
    """The layers to copy from the solver's `weights`; empty for every layer of equal name."""
    precision: str = FP32
    """One of PRECISIONS. tf32 is for GPUs only."""

    def __post_init__(self) -> None:
        require_count("parallel.shards", self.shards, 1)
        require_precision(self.precision)


def require(ok: bool, key: str, expected: str, got: object) -> None:
    """Refuse a value that is out of range, by its key.

    Raises:
        ProtoError: `ok` is false, or the number is too large for Caffe's single precision.
    """
    if not ok or (isinstance(got, float) and abs(got) > FLOAT_MAX):
        raise ProtoError(
            f"{key}: out of range; expected {expected}, got {shown(got)}; change the value"
        )


def require_count(key: str, value: int | None, least: int, most: int = INT_MAX) -> None:
    """Refuse a count out of range; by default its end is what 32 bits of Caffe's fields hold."""
    if value is not None:
        expected = f"at least {least}" if value < least else f"at most {most}"
        require(least <= value <= most, key, expected, value)


def require_precision(precision: str) -> None:
    """Refuse a precision that is not one of PRECISIONS."""
    expected = f"one of {', '.join(PRECISIONS)}"
    require(precision in PRECISIONS, "compute.precision", expected, precision)


def smallest_and_largest(scale: Scale) -> tuple[int, int]:
    """The ends of a scale's range; (1, 1) for images as stored, whose size is not known."""
    if isinstance(scale, tuple):
        return scale
    return (1, 1) if scale is None else (scale, scale)


def sidecar_path(solver_path: str | os.PathLike[str]) -> Path:
    """The path of the sidecar of a solver prototxt.

    Raises:
        ProtoError: the path names no file.
    """
    path = Path(solver_path)
    if path.name in ("", ".."):
        raise ProtoError(
            f"{os.fspath(solver_path)}: names a folder; expected a solver prototxt; check the path"
        )
    return path.with_suffix(SUFFIX)


def locate_sidecar(solver_path: str | os.PathLike[str]) -> Path | None:
    """The path of the sidecar that `read_sidecar` reads; None if the solver has none.

    Raises:
        ProtoError: a comment of the solver names a sidecar that is missing, or another one.
    """
    return find_sidecar(Path(solver_path), sidecar_path(solver_path))


def read_sidecar(solver_path: str | os.PathLike[str], param: Message | None = None) -> Sidecar:
    """The sidecar of a solver prototxt, or the defaults if there is none.

    With the SolverParameter `param`, fields that both set must agree.

    Raises:
        ProtoError: a key is unknown, of the wrong kind or out of range, or differs from the solver;
            or see `locate_sidecar`.
    """
    path = locate_sidecar(solver_path)
    if path is None:
        return Sidecar()
    sidecar = _read(path)
    if param is not None and sidecar.schedule is not None:
        check_agreement(Path(solver_path), param, path, vars(sidecar.schedule))
    return sidecar


def _read(path: Path) -> Sidecar:
    root = read_toml(path)
    data, parallel, weights = root.table("data"), root.table("parallel"), root.table("weights")
    compute = root.table("compute")
    train, test, schedule = data.table("train"), data.table("test"), root.table("schedule")
    train_options = data_options(train, DataOptions())
    test_options = data_options(test, DataOptions())
    plateau = plateau_options(schedule, PlateauOptions()) if "schedule" in root else None
    shards = parallel.optional_integer("shards")
    layers = weights.texts("layers", ())
    precision = compute.text("precision", FP32)
    for table in (root, data, train, test, schedule, parallel, weights, compute):
        table.close()
    with root.located():
        return Sidecar(train_options, test_options, plateau, shards, layers, precision)


def write_sidecar(solver_path: str | os.PathLike[str], sidecar: Sidecar) -> Path:
    """Replace the sidecar of a solver prototxt; returns its path."""
    path = sidecar_path(solver_path)
    atomic_write_text(path, sidecar_text(sidecar, Path(solver_path).name), ProtoError)
    return path


def sidecar_text(sidecar: Sidecar, solver_name: str) -> str:
    """The sidecar as TOML: the same sidecar, the same bytes."""
    lines = [f"# What original Caffe has no field for; verydeep reads it with {solver_name}."]
    lines += ["", "[data.train]", *toml_lines(data_pairs(sidecar.train))]
    lines += ["", "[data.test]", *toml_lines(data_pairs(sidecar.test))]
    if sidecar.schedule is not None:
        lines += ["", "[schedule]", *toml_lines(plateau_pairs(sidecar.schedule))]
    if sidecar.shards is not None:
        lines += ["", "[parallel]", *toml_lines([("shards", sidecar.shards)])]
    if sidecar.weights_layers:
        lines += ["", "[weights]", *toml_lines([("layers", sidecar.weights_layers)])]
    if sidecar.precision != FP32:
        lines += ["", "[compute]", *toml_lines([("precision", sidecar.precision)])]
    return "\n".join(lines) + "\n"


def describe_sidecar(path: Path, sidecar: Sidecar) -> str:
    """What a sidecar changes, compared with original Caffe, in one line."""
    changes = [
        f"data.{phase}.{key} = {toml_value(value)}"
        for phase, options in (("train", sidecar.train), ("test", sidecar.test))
        for (key, value), (_, default) in zip(data_pairs(options), data_pairs(DataOptions()))
        if value != default
    ]
    if sidecar.schedule is not None:
        values = sidecar.schedule
        changes.append(
            "the solver's lr_policy is replaced by schedule: the rate times "
            f"{values.factor:g} after {values.patience} tests without a better {values.metric}"
        )
    if sidecar.shards is not None:
        changes.append(f"parallel.shards = {sidecar.shards}")
    if sidecar.weights_layers:
        changes.append(f"weights.layers = {toml_value(sidecar.weights_layers)}")
    if sidecar.precision != FP32:
        changes.append(f"compute.precision = {toml_value(sidecar.precision)}")
    return f"Sidecar {path}: {'; '.join(changes) or 'changes nothing'}"


def data_pairs(options: DataOptions) -> list[tuple[str, object]]:
    """DataOptions as TOML's keys and values."""
    pca = options.pca
    inline = isinstance(pca, ColourPca)
    return [
        ("short_side", STORED if options.short_side is None else options.short_side),
        ("colour_shift", options.colour_shift),
        ("pca", None if inline else pca),
        ("pca.eigenvalues", pca.eigenvalues if isinstance(pca, ColourPca) else None),
        ("pca.eigenvectors", pca.eigenvectors if isinstance(pca, ColourPca) else None),
        ("shuffle", options.shuffle),
        ("seed", options.seed),
        ("workers", options.workers),
        ("prefetch", options.prefetch),
        ("on_error", None if options.on_error == "fatal" else options.on_error),
        ("boxes", options.boxes),
    ]


def plateau_pairs(options: PlateauOptions) -> list[tuple[str, object]]:
    """PlateauOptions as TOML's keys and values."""
    return list(vars(options).items())


def data_options(table: Table, default: DataOptions) -> DataOptions:
    """The keys of DataOptions in a table, which may have other keys for its reader."""
    values = (
        scale_of(table, default.short_side),
        table.number("colour_shift", default.colour_shift),
        _pca_of(table, default.pca),
        table.boolean("shuffle", default.shuffle),
        table.optional_integer("seed", default.seed),
        table.optional_integer("workers", default.workers),
        table.optional_integer("prefetch", default.prefetch),
        table.text("on_error", default.on_error),
        table.optional_text("boxes") or default.boxes,
    )
    with table.located():
        return DataOptions(*values)


def plateau_options(table: Table, default: PlateauOptions) -> PlateauOptions:
    """The keys of PlateauOptions in a table."""
    values = (
        table.text("metric", default.metric),
        table.text("mode", default.mode),
        table.number("factor", default.factor),
        table.integer("patience", default.patience),
        table.number("min_delta", default.min_delta),
        table.integer("max_drops", default.max_drops),
        table.boolean("stop_after_last", default.stop_after_last),
    )
    with table.located():
        return PlateauOptions(*values)


def scale_of(table: Table, default: Scale) -> Scale:
    """A table's `short_side`: 256, [256, 512], or "stored" for images as they are."""
    value = table.raw("short_side")
    if value is None:
        return default
    if value == STORED:
        return None
    if is_integer(value):
        return int(value)
    if isinstance(value, list) and len(value) == 2 and all(map(is_integer, value)):
        return value[0], value[1]
    raise table.error("short_side", f'S, [Smin, Smax] or "{STORED}"', value)


def _pca_of(table: Table, default: str | ColourPca | None) -> str | ColourPca | None:
    value = table.raw("pca")
    if not isinstance(value, dict):
        return table.optional_text("pca") or default
    parts = table.table("pca")
    eigenvalues = parts.numbers("eigenvalues", ())
    rows = parts.rows("eigenvectors", is_number, "three lists of three numbers")
    parts.close()
    with table.located():
        return ColourPca(eigenvalues, tuple(tuple(map(float, row)) for row in rows))
