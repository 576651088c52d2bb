"""Prototxt read as Caffe reads it, and the errors where it does not parse."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from prototxt_gen import proto
from prototxt_gen.errors import ProtoError
from prototxt_gen.text import parse, read, read_net, read_solver, to_text, write
from prototxt_gen.toml_tables import read_toml

SAMPLE = """# A small net.
name: "sample"
layer {
  name: "data" type: "Data" top: "data" top: "label"
  include { phase: TRAIN }
  transform_param { mirror: true crop_size: 224 mean_value: [103.939, 116.779, 123.68] }
  data_param { source: "a/b" batch_size: 64 backend: LMDB }
}
layer {
  name: "conv1"; type: "Convolution", bottom: "data" top: "conv1"
  param { lr_mult: 1 decay_mult: 1 }
  param < lr_mult: 2.0 decay_mult: 0 >
  convolution_param {
    num_output: 64 kernel_size: 3 pad: 1  # same size
    weight_filler: { type: 'gaussian' std: 1e-2 }
    bias_filler { value: .5 }
  }
}
layer { name: "loss" type: "Soft" "maxWithLoss" bottom: "conv1" loss_weight: -1.f }
"""


def test_parse_reads_what_caffe_reads() -> None:
    net = parse(SAMPLE, proto.NetParameter)
    data, conv, loss = net.layer
    assert data.data_param.backend == proto.DataParameter.LMDB
    assert list(data.transform_param.mean_value) == pytest.approx([103.939, 116.779, 123.68])
    assert [spec.lr_mult for spec in conv.param] == [1, 2]
    assert conv.convolution_param.weight_filler.std == pytest.approx(0.01)
    assert conv.convolution_param.bias_filler.value == 0.5
    assert loss.type == "SoftmaxWithLoss"
    assert list(loss.loss_weight) == [-1]


def test_parse_fills_a_given_message() -> None:
    net = proto.NetParameter(name="kept")
    assert parse("force_backward: true", net) is net
    assert (net.name, net.force_backward) == ("kept", True)


def test_print_is_idempotent_and_loses_nothing() -> None:
    net = parse(SAMPLE, proto.NetParameter)
    text = to_text(net)
    assert parse(text, proto.NetParameter) == net
    assert to_text(parse(text, proto.NetParameter)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'name: "x"\n\n  layer { convolution_param { kernal_size: 3 } }',
            "n.prototxt:3:31: ConvolutionParameter has no field 'kernal_size'; expected "
            "'kernel_size' or 'kernel_w' or 'kernel_h', got 'kernal_size'; correct the name or "
            "remove it",
        ),
        (
            "zzz: 1",
            "n.prototxt:1:1: NetParameter has no field 'zzz'; expected one of name, input, "
            "input_shape, input_dim, force_backward, state, debug_info, layer, layers, got 'zzz'; "
            "correct the name or remove it",
        ),
        (
            'name: "a"\nname: "b"',
            "field 'name' of NetParameter is given twice; expected it once, got it again; remove "
            "one of them",
        ),
        (
            "layer { pooling_param { pool: AVG } }",
            "n.prototxt:1:31: PoolMethod has no value AVG; expected AVE, got AVG; write one of "
            "them, without quotes",
        ),
        (
            "state { phase: 7 }",
            "n.prototxt:1:16: Phase has no value 7; expected TRAIN or TEST, got 7; write one of "
            "them, without quotes",
        ),
        (
            'layers { type: "Data" }',
            "n.prototxt:1:16: LayerType has no value Data; expected DATA or HDF5_DATA or "
            "IMAGE_DATA, got Data; write one of them, without quotes; a type in quotes belongs in "
            "layer { }, not in layers { }",
        ),
        (
            "layer { type: CONVOLUTION }",
            "n.prototxt:1:15: not a string; expected text in quotes, got CONVOLUTION; write it in "
            'quotes: "..."',
        ),
        (
            "layer { inner_product_param { num_output: 2.5 } }",
            "n.prototxt:1:43: not a number; expected an integer, got 2.5; correct the value",
        ),
        (
            "layer { loss_weight: one }",
            "n.prototxt:1:22: not a number; expected a number, got one; correct the value",
        ),
        (
            "layer { inner_product_param { num_output: -1 } }",
            "n.prototxt:1:43: a number out of range; expected one that fits the field, got -1; "
            "correct it",
        ),
        (
            'layer { name: "x"\n',
            "n.prototxt:1:15: unexpected text; expected '}', got the end of the text; check the "
            "braces and colons here",
        ),
        (
            'layer { name "x" }',
            "n.prototxt:1:14: unexpected text; expected ':', got \"x\"; check the braces and "
            "colons here",
        ),
        (
            "layer { } }",
            "n.prototxt:1:11: unexpected text; expected identifier or number, got }; check the "
            "braces and colons here",
        ),
        (
            'name: "open',
            'n.prototxt:1:7: a string without an end; expected a closing quote, got "open; close '
            "the string",
        ),
        (
            "layer { clip_param { min: 1 } }",
            "n.prototxt:1:1: required fields are missing; expected layer[0].clip_param.max, got "
            "nothing for them; add them",
        ),
        (
            "[some.extension]: 1",
            'unreadable text; expected prototxt, got extension (Message type "caffe.NetParameter" '
            "does not have extensions.); correct it",
        ),
    ],
)
def test_errors_name_place_expectation_and_remedy(text: str, complaint: str) -> None:
    with pytest.raises(ProtoError) as caught:
        parse(text, proto.NetParameter, "n.prototxt")
    assert str(caught.value).startswith("n.prototxt:")
    assert complaint in str(caught.value)


def test_errors_do_not_repeat_endless_text() -> None:
    huge = "9" * 100_000
    with pytest.raises(ProtoError, match=r"got 9{80}\.\.\.; correct") as caught:
        parse(f"layer {{ inner_product_param {{ num_output: {huge} }} }}", proto.NetParameter)
    assert len(str(caught.value)) < 300
    with pytest.raises(ProtoError, match=r"has no field 'x{80}\.\.\.'"):
        parse("x" * 100_000 + ": 1", proto.NetParameter)


def test_huge_floats_are_infinite_as_in_caffe() -> None:
    net = parse("layer { loss_weight: 1e999 loss_weight: -1e999 }", proto.NetParameter)
    assert to_text(net) == "layer {\n  loss_weight: inf\n  loss_weight: -inf\n}\n"


@pytest.mark.parametrize("opening", ["layer { ", "layer < ", "solver { ", "[", "{"])
def test_deep_nesting_is_an_error_and_no_crash(opening: str) -> None:
    with pytest.raises(ProtoError):
        parse(opening * 100_000, proto.NetParameter)


def test_comments_may_be_in_any_encoding() -> None:
    text = b'\xef\xbb\xbf# \xc4\xe3\xba\xc3\r\nname: "\xe6\x95\xb0"\r\n# \xff'
    assert parse(text, proto.NetParameter).name == "数"


def test_strings_are_utf8() -> None:
    with pytest.raises(ProtoError) as caught:
        parse(b'# \xff\nname: "#\xc4\xe3"', proto.NetParameter, "n")
    assert str(caught.value) == (
        "n:2:9: text that is not UTF-8; expected UTF-8 outside of comments, got the byte 0xc4; "
        "save the file as UTF-8"
    )
    with pytest.raises(ProtoError, match="escapes that are not UTF-8; expected a string whose"):
        parse(r'name: "\xff"', proto.NetParameter, "n")
    with pytest.raises(ProtoError, match="got the byte 0x"):
        parse("layer { phase: \udcb5 }", proto.NetParameter)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x0a\x03VGG\x12\x10\x00\x00", "binary data, such as a .caffemodel"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ('name: "x"'.encode("utf-16"), "UTF-16 text"),
        (b"\x1f\x8b\x08", "a gzip file"),
    ],
)
def test_binary_files_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "weights.caffemodel"
    path.write_bytes(content)
    for attempt in (lambda: read_net(path), lambda: parse(content, proto.NetParameter, str(path))):
        with pytest.raises(ProtoError) as caught:
            attempt()
        assert str(caught.value) == (
            f"{path}:1:1: this is no prototxt; expected text in UTF-8, got {kind}"
            f"{' or .binaryproto' if 'binary' in kind else ''}; give the .prototxt here, and "
            "weights by the option for weights"
        )


def test_unreadable_files(tmp_path: Path) -> None:
    absent = tmp_path / "absent.prototxt"
    with pytest.raises(ProtoError) as caught:
        read(absent, proto.NetParameter)
    assert str(caught.value) == (
        f"{absent}: cannot be read: No such file or directory; expected a prototxt file; check the "
        f"path (the current folder is {Path.cwd()})"
    )
    with pytest.raises(ProtoError, match="cannot be read: Is a directory"):
        read_net(tmp_path)
    with pytest.raises(ProtoError, match="cannot be read: embedded null byte"):
        read_solver("a\0b")


def test_write_then_read(tmp_path: Path) -> None:
    net = parse(SAMPLE, proto.NetParameter)
    path = tmp_path / "new" / "net.prototxt"
    write(path, net)
    assert path.read_text(encoding="utf-8") == to_text(net)
    assert read(path, proto.NetParameter) == net
    assert [item.name for item in path.parent.iterdir()] == ["net.prototxt"]
    with pytest.raises(ProtoError, match="cannot be written"):
        write(path / "below", net)


def test_files_of_any_size(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "ü" }\n' * 1000, encoding="utf-8")
    assert [layer.name for layer in read_net(path).layer] == ["ü"] * 1000


def test_read_net_upgrades_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layers { name: "r" type: RELU bottom: "a" top: "a" }', encoding="utf-8")
    with caplog.at_level(logging.INFO, "verydeep"):
        net = read_net(path)
    assert [layer.type for layer in net.layer] == ["ReLU"]
    assert caplog.messages == [f"{path}: 1 layers of the V1 form (layers {{ }}) upgraded"]


def test_read_net_warns_of_what_has_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "d" type: "Data" data_param { mirror: true } }', "utf-8")
    assert read_net(path).layer[0].data_param.mirror
    assert caplog.messages == [
        f"{path}: layer 'd': mirror in data_param has no effect, as in Caffe; write it in "
        "transform_param"
    ]


def test_read_solver_upgrades_and_completes_the_prefix(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text("solver_type: ADAM base_lr: 0.1", encoding="utf-8")
    solver = read_solver(path)
    assert solver.type == "Adam"
    assert solver.snapshot_prefix == str(tmp_path / "solver")


def mutant(generator: random.Random, text: bytes) -> bytes:
    """The text with a few bytes changed, dropped, doubled or moved, as by a bad disk or hand."""
    content = bytearray(text)
    for _ in range(generator.randint(1, 3)):
        start = generator.randrange(len(content) or 1)
        end = min(len(content), start + generator.randint(1, 40))
        piece = bytes(content[start:end])
        kind = generator.randrange(5)
        if kind == 0 and content:
            content[start] = generator.randrange(256)
        elif kind == 1:
            del content[start:end]
        elif kind == 2:
            content[start:start] = piece * generator.randint(1, 50)
        elif kind == 3:
            content[start:end] = bytes(generator.choices(b'{}<>[]:"\\#\n\t 0123456789.eE+-', k=9))
        else:
            content.insert(start, generator.choice(b"{}\"'\\:-"))
    return bytes(content)


def check_mutants(seeds: range) -> None:
    outcomes = set()
    for seed in seeds:
        generator = random.Random(seed)
        content = mutant(generator, SAMPLE.encode())
        try:
            net = parse(content, proto.NetParameter, "mutant")
        except ProtoError as error:
            assert str(error).startswith("mutant:"), seed
            outcomes.add("refused")
        else:
            text = to_text(net)
            assert to_text(parse(text, proto.NetParameter)) == text, seed
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_mutants_are_read_or_refused() -> None:
    check_mutants(range(100))


@pytest.mark.slow
def test_many_mutants_are_read_or_refused() -> None:
    check_mutants(range(100, 2100))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("layer {" * 100_000, r":1:\d+: "),
        ("layer { name: " + "[" * 100_000, r":1:\d+: "),
        ("input_dim: " + "9" * 100_000, "not a number|out of range"),
        ("input_dim: 0x" + "f" * 100_000, "not a number|out of range"),
        ("force_backward: " + "1" * 100_000, r":1:\d+: "),
        (f"name: '{'x' * 300_000}", "a string without an end"),
        (f"{'x' * 300_000}: 1", "NetParameter has no field"),
        ("name: " + "'x' " * 50_000 + ":", r":1:\d+: "),
        (f"layer {{ type: {'x' * 300_000} }}", "not a string"),
        ("input_shape { dim: [" + "1, " * 50_000, r":1:\d+: "),
        ("name: '" + "\\" * 100_000 + "'", r":1:8: too many backslashes"),
    ],
    ids=lambda value: value[:24],
)
def test_text_without_end_is_refused_in_few_words(text: str, words: str) -> None:
    with pytest.raises(ProtoError, match=words) as caught:
        parse(text, proto.NetParameter, "net.prototxt")
    assert len(str(caught.value)) < 1000


def test_a_working_folder_that_was_removed_is_named_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ProtoError, match="the current folder is one that was removed"):
        read("net.prototxt", proto.NetParameter)
    with pytest.raises(ProtoError, match="the current folder is one that was removed"):
        read_toml("spec.toml")
    with pytest.raises(ProtoError, match="cannot be written: No such file"):
        write("net.prototxt", proto.NetParameter())
