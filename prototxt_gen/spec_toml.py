"""Reads and writes specifications as TOML; see docs/reference/spec.md."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterable
from fractions import Fraction

from prototxt_gen import vgg
from prototxt_gen.errors import ProtoError
from prototxt_gen.families import families
from prototxt_gen.reading import short_repr
from prototxt_gen.sidecar import (
    FP32,
    PlateauOptions,
    Scale,
    data_options,
    data_pairs,
    plateau_options,
    plateau_pairs,
)
from prototxt_gen.spec import (
    Data,
    Finetuning,
    Initialisation,
    LrnValues,
    NetSpecification,
    SolverValues,
    TestData,
    TrainData,
    default_data,
    default_init,
    default_name,
    net_names,
    paper_test_scale,
)
from prototxt_gen.toml_tables import (
    Table,
    is_number,
    is_text,
    parse_toml,
    read_toml,
    toml_lines,
    toml_value,
)
from prototxt_gen.vgg import Stages

_WIDTH = re.compile(r"\s*[+-]?(\d{1,12}/\d{1,12}|\d{0,12}\.?\d{0,24}([eE][+-]?\d{1,2})?)\s*", re.A)


def load_spec(path: str | os.PathLike[str]) -> NetSpecification:
    """Read the specification in a TOML file; missing keys have the paper's values.

    Raises:
        ProtoError: a key is unknown, or its value is of the wrong kind, out of range or contradicts
            another; the message contains the file and the key.
    """
    return _spec_of(read_toml(path))


def parse_spec(text: str, where: str = "spec") -> NetSpecification:
    """Parse the specification in a TOML text; see `load_spec`."""
    return _spec_of(parse_toml(text, where))


def parse_width(text: str) -> Fraction:
    """Parse a width multiplier such as "1/8", "0.125" or "2".

    Raises:
        ValueError: the text is not a number, or has too many digits.
    """
    if not _WIDTH.fullmatch(text):
        raise ValueError(f"{short_repr(text)} is no multiplier")
    try:
        return Fraction(text)
    except ZeroDivisionError as cause:
        raise ValueError(f"{text} divides by zero") from cause


def to_toml(spec: NetSpecification) -> str:
    """The specification as TOML, which reads back as an equal one; equal specs give equal bytes."""
    lines = [
        *toml_lines([("name", spec.name)]),
        *_net_lines(spec),
        *toml_lines([("fc", spec.fc), ("classes", spec.classes), ("crop", spec.crop)]),
        "# What every width but the number of classes is multiplied by.",
        *toml_lines([("width", str(spec.width)), ("dropout", spec.dropout)]),
        *_section("lrn", vars(spec.lrn).items()),
        *_section("init", vars(spec.init).items()),
        *_data_sections(spec.data),
        *_section("solver", vars(spec.solver).items()),
        *_section("schedule", plateau_pairs(spec.schedule)),
    ]
    if spec.shards is not None:
        lines += _section("parallel", [("shards", spec.shards)])
    if spec.finetune is not None:
        lines += _section("finetune", vars(spec.finetune).items())
    if spec.precision != FP32:
        lines += _section("compute", [("precision", spec.precision)])
    return "\n".join(lines) + "\n"


def _net_lines(spec: NetSpecification) -> list[str]:
    if spec.family is not None:
        return toml_lines([("net", spec.family)])
    return [
        "# A row a stage, each ending in a 2x2 max-pooling: conv<kernel>-<channels>, or LRN.",
        "stages = [",
        *(f"  {toml_value([str(unit) for unit in stage])}," for stage in spec.stages),
        "]",
    ]


def _data_sections(data: Data) -> list[str]:
    mean = [("mean_value", data.mean_value), ("mean_file", data.mean_file)]
    train, test = data.train, data.test
    own = [("source", train.source), ("batch_size", train.batch_size), ("mirror", train.mirror)]
    of_test = [("source", test.source), ("batch_size", test.batch_size)]
    return [
        *_section("data", mean),
        *_section("data.train", [*own, *data_pairs(train.options)]),
        *_section("data.test", [*of_test, *data_pairs(test.options)]),
    ]


def _section(name: str, values: Iterable[tuple[str, object]]) -> list[str]:
    return ["", f"[{name}]", *toml_lines(values)]


def _spec_of(root: Table) -> NetSpecification:
    net = root.optional_text("net")
    rows = root.rows("stages", is_text, "a list of stages, each a list of rows")
    name = root.optional_text("name", default_name(net) if net else None)
    crop = root.integer("crop", vgg.CROP)
    values = (
        root.integers("fc", vgg.FC_WIDTHS),
        root.integer("classes", vgg.CLASSES),
        crop,
        _width(root),
        root.number("dropout", 0.5),
        _lrn(root),
        _init(root, default_init(net)),
        _data(root, default_data(crop)),
        _solver(root),
        _schedule(root),
        _shards(root),
        _precision(root),
    )
    finetune = _finetune(root)
    # A misspelt `stages` must be reported as an unknown key, not as missing.
    root.close()
    if name is None:
        raise root.error("name", "a name, as the stages are not those of a built-in net", name)
    with root.located():
        stages = _stages(net, rows if "stages" in root else None)
        family = None if stages else net
        return NetSpecification(name, stages, *values, family=family, finetune=finetune)


def _stages(net: str | None, rows: list[list[str]] | None) -> Stages:
    if net is not None and rows is None:
        return () if net in families() else vgg.stages_of(net)
    if rows is not None and net is None:
        return vgg.parse_stages(rows)
    raise ProtoError(
        f"stages: expected either net or stages, got {'both' if net else 'neither'}; "
        f"write net = one of {', '.join(net_names())}, or the stages of your own net"
    )


def _width(root: Table) -> Fraction:
    value = root.raw("width")
    if value is None:
        return Fraction(1)
    if is_number(value) or is_text(value):
        with contextlib.suppress(ValueError):
            return parse_width(str(value))
    raise root.error("width", 'a number such as 0.125 or "1/8"', value)


def _lrn(root: Table) -> LrnValues:
    table, default = root.table("lrn"), LrnValues()
    values = (
        table.integer("local_size", default.local_size),
        table.number("alpha", default.alpha),
        table.number("beta", default.beta),
        table.number("k", default.k),
    )
    table.close()
    with root.located():
        return LrnValues(*values)


def _init(root: Table, default: Initialisation) -> Initialisation:
    table = root.table("init")
    values = (
        table.text("method", default.method),
        table.optional_text("weights"),
        table.optional_number("first_std"),
    )
    table.close()
    with root.located():
        return Initialisation(*values)


def _finetune(root: Table) -> Finetuning | None:
    if "finetune" not in root:
        return None
    table = root.table("finetune")
    values = (
        table.text("weights", ""),
        table.optional_text("layer"),
        table.number("rate", 10.0),
        table.texts("freeze", ()),
    )
    table.close()
    with root.located():
        return Finetuning(*values)


def _data(root: Table, default: Data) -> Data:
    table = root.table("data")
    mean_file = table.optional_text("mean_file")
    mean_value = table.numbers("mean_value", () if mean_file else default.mean_value)
    train = _train_data(table, root, default.train)
    test = _test_data(table, root, default.test, paper_test_scale(train.options.short_side))
    table.close()
    with root.located():
        return Data(train, test, mean_value, mean_file)


def _train_data(data: Table, root: Table, default: TrainData) -> TrainData:
    table = data.table("train")
    values = (
        table.text("source", default.source),
        table.integer("batch_size", default.batch_size),
        table.boolean("mirror", default.mirror),
        data_options(table, default.options),
    )
    table.close()
    with root.located():
        return TrainData(*values)


def _test_data(data: Table, root: Table, default: TestData, scale: Scale) -> TestData:
    table = data.table("test")
    values = (
        table.text("source", default.source),
        table.integer("batch_size", default.batch_size),
        data_options(table, dataclasses.replace(default.options, short_side=scale)),
    )
    table.close()
    with root.located():
        return TestData(*values)


def _solver(root: Table) -> SolverValues:
    table, default = root.table("solver"), SolverValues()
    values = (
        table.number("base_lr", default.base_lr),
        table.number("momentum", default.momentum),
        table.number("weight_decay", default.weight_decay),
        table.text("lr_policy", default.lr_policy),
        table.integers("stepvalue", default.stepvalue),
        table.number("power", default.power),
        table.integer("max_iter", default.max_iter),
        table.integer("iter_size", default.iter_size),
        table.integer("test_iter", default.test_iter),
        table.integer("test_interval", default.test_interval),
        table.integer("display", default.display),
        table.integer("snapshot", default.snapshot),
        table.integer("random_seed", default.random_seed),
        table.text("solver_mode", default.solver_mode),
    )
    table.close()
    with root.located():
        return SolverValues(*values)


def _schedule(root: Table) -> PlateauOptions:
    table = root.table("schedule")
    options = plateau_options(table, PlateauOptions())
    table.close()
    return options


def _shards(root: Table) -> int | None:
    table = root.table("parallel")
    shards = table.optional_integer("shards")
    table.close()
    return shards


def _precision(root: Table) -> str:
    table = root.table("compute")
    precision = table.text("precision", FP32)
    table.close()
    return precision
