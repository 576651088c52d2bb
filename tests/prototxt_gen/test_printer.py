"""Canonical text: one form, the fewest digits, the schema's order."""

from __future__ import annotations

import math
import random
import struct

import pytest

from prototxt_gen import proto
from prototxt_gen.printer import shortest_double, shortest_float, to_text
from prototxt_gen.text import parse


def float32(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.0005, "0.0005"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        (103.939, "103.939"),
        (100000.0, "100000"),
        (16777216.0, "16777216"),
        (1 / 255, "0.003921569"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (1e-45, "1e-45"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_shortest_float(value: float, text: str) -> None:
    assert shortest_float(float32(value)) == text


def test_shortest_float_gives_every_float32_back() -> None:
    generator = random.Random(1)
    for _ in range(2000):
        bits = struct.pack("<I", generator.getrandbits(32))
        value = struct.unpack("<f", bits)[0]
        if math.isfinite(value):
            text = shortest_float(value)
            assert struct.pack("<f", float(text)) == bits
            # No text of one digit less does.
            digits = len(text.split("e")[0].replace(".", "").lstrip("-0").rstrip("0"))
            if digits > 1:
                assert struct.pack("<f", float(f"{value:.{digits - 1}g}")) != bits


def test_doubles_keep_their_digits() -> None:
    assert shortest_double(0.1) == "0.1"
    assert shortest_double(2.0) == "2"
    blob = proto.BlobProto(double_data=[1 / 3])
    assert to_text(blob) == "double_data: 0.3333333333333333\n"


def test_layout_and_order_are_the_schemas() -> None:
    solver = proto.SolverParameter(base_lr=0.01, net="a.prototxt", stepvalue=[10, 20])
    solver.solver_mode = proto.SolverParameter.CPU
    solver.train_state.stage.append("x")
    solver.snapshot_diff = False
    assert to_text(solver) == (
        'net: "a.prototxt"\n'
        "train_state {\n"
        '  stage: "x"\n'
        "}\n"
        "base_lr: 0.01\n"
        "stepvalue: 10\n"
        "stepvalue: 20\n"
        "snapshot_diff: false\n"
        "solver_mode: CPU\n"
    )
    assert to_text(proto.NetParameter()) == ""


@pytest.mark.parametrize("text", ['q"\\\n\t', "\x01\x7f", "ümlaut 数", "a'b", "\u2028", ""])
def test_strings_come_back(text: str) -> None:
    net = proto.NetParameter(name=text)
    printed = to_text(net)
    assert printed.count("\n") == 1
    assert parse(printed, proto.NetParameter) == net


def test_escapes_are_the_shortest_that_every_reader_accepts() -> None:
    net = proto.NetParameter(name='a\t\n\r"\\\x01' + "1\x7fü'")
    assert to_text(net) == 'name: "a\\t\\n\\r\\"\\\\\\0011\\177ü\'"\n'


def test_bytes_come_back() -> None:
    datum = proto.Datum(data=bytes(range(256)))
    assert parse(to_text(datum), proto.Datum) == datum
    assert to_text(datum).isascii()
