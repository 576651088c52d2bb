"""A net's specification in its written form, TOML; docs/SPEC.md describes it."""

from __future__ import annotations

import dataclasses
import os
from fractions import Fraction

from prototxt_gen import vgg
from prototxt_gen.sidecar import (
    data_options,
    data_pairs,
    plateau_options,
    plateau_pairs,
    scale_of,
)
from prototxt_gen.spec import (
    Data,
    Initialisation,
    LrnValues,
    NetSpecification,
    SolverValues,
    TestData,
    TrainData,
    builtin_spec,
    paper_test_scale,
)
from prototxt_gen.toml_tables import Table, is_number, parse_toml, read_toml, toml_lines, toml_value
from prototxt_gen.vgg import Stages


def load_spec(path: str | os.PathLike[str]) -> NetSpecification:
    """The specification in a TOML file; what the file leaves out is as the paper has it.

    Raises:
        ProtoError: names the file and the key that is unknown, of the wrong kind, out of range or
            in contradiction to another.
    """
    return _spec_of(read_toml(path))


def parse_spec(text: str, where: str = "spec") -> NetSpecification:
    """The specification in a TOML text. See `load_spec`."""
    return _spec_of(parse_toml(text, where))


def parse_width(text: str) -> Fraction:
    """A width multiplier such as "1/8", "0.125" or "2".

    Raises:
        ValueError: the text is no number.
    """
    try:
        return Fraction(text)
    except ZeroDivisionError as cause:
        raise ValueError(f"{text} divides by zero") from cause


def to_toml(spec: NetSpecification) -> str:
    """The specification as TOML, which reads back as an equal one: the same spec, the same bytes."""
    rows = [f"  {toml_value([str(unit) for unit in stage])}," for stage in spec.stages]
    init = [("method", spec.init.method), ("weights", spec.init.weights)]
    lines = [
        *toml_lines([("name", spec.name)]),
        "# A row a stage, each ending in a 2x2 max-pooling: conv<kernel>-<channels>, or LRN.",
        "stages = [",
        *rows,
        "]",
        *toml_lines([("fc", spec.fc), ("classes", spec.classes), ("crop", spec.crop)]),
        "# What every width but the number of classes is multiplied by.",
        *toml_lines([("width", str(spec.width)), ("dropout", spec.dropout)]),
        *_section("lrn", list(vars(spec.lrn).items())),
        *_section("init", init),
        *_data_sections(spec.data),
        *_section("solver", list(vars(spec.solver).items())),
        *_section("schedule", plateau_pairs(spec.schedule)),
    ]
    if spec.shards is not None:
        lines += _section("parallel", [("shards", spec.shards)])
    return "\n".join(lines) + "\n"


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


def _section(name: str, values: list[tuple[str, object]]) -> list[str]:
    return ["", f"[{name}]", *toml_lines(values)]


def _spec_of(root: Table) -> NetSpecification:
    net = root.optional_text("net")
    with root.located():
        base = builtin_spec(net or "A", root.integer("crop", vgg.CROP))
    stages = _stages(root, net, base.stages)
    name = root.text("name", base.name if net else "net")
    lrn, init = _lrn(root.table("lrn")), _init(root.table("init"), base.init)
    data, solver = _data(root.table("data"), base.data), _solver(root.table("solver"))
    schedule = root.table("schedule")
    plateau = plateau_options(schedule, base.schedule)
    parallel = root.table("parallel")
    shards = parallel.optional_integer("shards")
    spec_values = {
        "fc": root.integers("fc", base.fc),
        "classes": root.integer("classes", base.classes),
        "dropout": root.number("dropout", base.dropout),
        "width": _width(root),
    }
    for table in (root, schedule, parallel):
        table.close()
    with root.located():
        return NetSpecification(
            name=name,
            stages=stages,
            crop=base.crop,
            lrn=lrn,
            init=init,
            data=data,
            solver=solver,
            schedule=plateau,
            shards=shards,
            **spec_values,
        )
