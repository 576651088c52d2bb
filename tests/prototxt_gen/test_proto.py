"""The schema against a list of Caffe's own fields, and other schemas in the process."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import proto
from prototxt_gen.dialects import DIALECTS, FIRST_NUMBER
from prototxt_gen.errors import ProtoError
from prototxt_gen.proto.schema import parse_schema

GOLDEN = Path(__file__).parents[1] / "golden" / "caffe_proto_fields.csv"
ROWS = list(csv.DictReader(GOLDEN.open(encoding="utf-8")))
FIELDS = [row for row in ROWS if row["kind"] == "field"]
ENUMS = [row for row in ROWS if row["kind"] == "enum"]
HEAD = 'syntax = "proto2";\npackage caffe;\n'


def enum_of(name: str) -> Any:
    message, _, nested = name.rpartition(".")
    if not message:
        return proto.NetState.DESCRIPTOR.file.enum_types_by_name[name]
    return getattr(proto, message).DESCRIPTOR.enum_types_by_name[nested]


def type_of(field: Any) -> str:
    if field.message_type is not None:
        return f"message {field.message_type.full_name.removeprefix('caffe.')}"
    if field.enum_type is not None:
        return f"enum {field.enum_type.full_name.removeprefix('caffe.')}"
    return proto.type_name(field)


def default_of(field: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if isinstance(field.default_value, bool):
        return str(field.default_value).lower()
    return str(field.default_value)


@pytest.mark.parametrize("message", dict.fromkeys(row["message"] for row in FIELDS))
def test_every_field_is_caffes(message: str) -> None:
    rows = [row for row in FIELDS if row["message"] == message]
    fields = [f for f in getattr(proto, message).DESCRIPTOR.fields if f.number < FIRST_NUMBER]
    assert [field.name for field in fields] == [row["name"] for row in rows]
    for field, row in zip(fields, rows):
        assert field.number == int(row["number"]), row
        assert type_of(field) == row["type"], row
        assert proto.is_repeated(field) == (row["label"] == "repeated"), row
        assert field.GetOptions().packed == (row["packed"] == "1"), row
        assert field.has_default_value == (row["has_default"] == "1"), row
        if row["has_default"] == "1" and row["type"] in ("float", "double"):
            assert field.default_value == pytest.approx(float(row["default"]), rel=1e-6), row
        elif row["has_default"] == "1":
            assert default_of(field) == row["default"], row


@pytest.mark.parametrize("name", dict.fromkeys(row["message"] for row in ENUMS))
def test_every_enum_is_caffes(name: str) -> None:
    expected = [(row["name"], int(row["number"])) for row in ENUMS if row["message"] == name]
    assert [(value.name, value.number) for value in enum_of(name).values] == expected


def test_nothing_beyond_caffes_messages() -> None:
    bvlc = {row["message"] for row in FIELDS}
    added = {
        field.message_type.name
        for name in bvlc
        for field in getattr(proto, name).DESCRIPTOR.fields
        if field.number >= FIRST_NUMBER and field.message_type is not None
    }
    # Messages of the fields of these messages.
    while below := {
        field.message_type.name
        for name in added
        for field in getattr(proto, name).DESCRIPTOR.fields
        if field.message_type is not None
    } - (bvlc | added):
        added |= below
    assert set(proto.message_names()) == bvlc | added


def test_the_table_of_dialects_has_every_added_field() -> None:
    added = {
        f"{name}.{field.name}"
        for name in proto.message_names()
        for field in getattr(proto, name).DESCRIPTOR.fields
        if field.number >= FIRST_NUMBER
    }
    assert "PoolingParameter.ceil_mode" in added
    assert added <= {name for dialect in DIALECTS.values() for name in dialect.fields}


def test_required_fields_are_caffes() -> None:
    required = [f"{row['message']}.{row['name']}" for row in FIELDS if row["label"] == "required"]
    assert required == ["ClipParameter.min", "ClipParameter.max"]
    assert proto.ClipParameter().FindInitializationErrors() == ["min", "max"]


def test_module_gives_messages_phases_and_names() -> None:
    assert (proto.TRAIN, proto.TEST) == (0, 1)
    assert proto.SolverParameter.GPU == 1
    assert {"NetParameter", "TRAIN", "message_names"} <= set(dir(proto))
    with pytest.raises(AttributeError, match="no message or phase 'NetParameters'"):
        _ = proto.NetParameters
    with pytest.raises(AttributeError, match="has no attribute '_absent'"):
        _ = proto._absent


def test_wire_bytes_are_caffes() -> None:
    net = proto.NetParameter(name="n")
    net.layer.add(type="ReLU")
    # Field 1 as bytes, then field 100 (two bytes of key) holding field 2 as bytes.
    assert net.SerializeToString() == b"\x0a\x01n" + b"\xa2\x06\x06" + b"\x12\x04ReLU"
    assert proto.BlobShape(dim=[1, 300]).SerializeToString() == b"\x0a\x03\x01\xac\x02"


def run_python(code: str, implementation: str = "") -> str:
    environment = {**os.environ}
    if implementation:
        environment["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = implementation
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ANOTHER = """
from google.protobuf import descriptor_pb2, descriptor_pool
other = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
message = other.message_type.add(name="NetParameter")
message.field.add(name="foreign", number=1, label=1, type=5)
default = descriptor_pool.Default()
registered = []
def register():
    registered.append(1)
    default.AddSerializedFile(other.SerializeToString())
def check():
    from prototxt_gen import proto
    ours = proto.NetParameter(name="ours")
    if not registered:
        return
    theirs = default.FindMessageTypeByName("caffe.NetParameter")
    assert [field.name for field in theirs.fields] == ["foreign"]
    assert proto.NetParameter.FromString(ours.SerializeToString()).name == "ours"
"""


@pytest.mark.parametrize("implementation", ["", "python"])
@pytest.mark.parametrize("order", ["register(); check()", "check(); register(); check()"])
def test_another_caffe_proto_in_the_process(implementation: str, order: str) -> None:
    run_python(ANOTHER + order, implementation)


def test_import_builds_nothing_and_registers_nothing() -> None:
    code = """
from google.protobuf import descriptor_pool
from prototxt_gen import proto
print("NetParameter" in vars(proto), proto._build_pool.cache_info().currsize)
proto.NetParameter()
try:
    descriptor_pool.Default().FindMessageTypeByName("caffe.NetParameter")
except KeyError:
    print("private")
"""
    assert run_python(code).split() == ["False", "0", "private"]


def test_threads_share_one_schema() -> None:
    code = """
import threading
from prototxt_gen import proto
barrier, seen = threading.Barrier(8), []
def work():
    barrier.wait()
    net = proto.NetParameter()
    seen.append(net)
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
target = proto.NetParameter()
[target.MergeFrom(net) for net in seen]
print(len({type(net) for net in seen}))
"""
    assert run_python(code) == "1"


SMALL = (
    HEAD
    + """/* a block
comment */
message A {
  message Inner { optional B b = 1; }
  enum Kind { LOW = -1; HIGH = 2; }
  repeated Kind kind = 1;  // a comment
  optional Inner inner = 2;
  optional string text = 3 [default = "a b", deprecated = true];
  required float number = 4 [default = -1.5e-3];
  repeated sint = 5;
}
message B {}
"""
)


def test_parser_reads_types_before_and_after_and_within() -> None:
    file = parse_schema(SMALL.replace("repeated sint", "repeated int64 sint"), "x.proto")
    message = file.message_type[0]
    assert message.nested_type[0].field[0].type_name == ".caffe.B"
    assert [field.type_name for field in message.field[:2]] == [".caffe.A.Kind", ".caffe.A.Inner"]
    assert [value.number for value in message.enum_type[0].value] == [-1, 2]
    assert message.field[2].default_value == "a b"
    assert message.field[2].options.deprecated
    assert message.field[3].default_value == "-1.5e-3"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SMALL, r"x\.proto:12: unreadable schema; expected '=', got '5'"),
        ("", r"x\.proto:1: .* expected 'syntax', got 'the end of the schema'"),
        (HEAD + "service X {}", r"x\.proto:3: .* expected 'message' or 'enum', got 'service'"),
        (HEAD + "message A {", r"x\.proto:3: .* expected more text, got 'the end of the schema'"),
        (HEAD + "message A { oneof x {} }", "expected a label, 'enum', 'message' or '}', got"),
        (HEAD + "message A { optional C c = 1; }", "expected a message, an enum or a scalar type"),
        (HEAD + "message A { optional int32 c = x; }", "expected a number, got 'x'"),
        (HEAD + "message A { optional int32 c = 1 [lazy = true]; }", "expected the option default"),
        (HEAD + "message A { optional int32 c = 1 [packed = true;", r"expected ',' or '\]', got"),
        (HEAD + "\n\nmessage A { ? }", r"x\.proto:5: .* expected a name, a number or .* got '\?'"),
    ],
)
def test_parser_names_the_line_and_what_it_expected(text: str, complaint: str) -> None:
    with pytest.raises(ProtoError, match=complaint):
        parse_schema(text, "x.proto")
