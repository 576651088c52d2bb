"""Text files: lists, TOML, XML, logs, JSON of colour components."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from data_prep import ilsvrc_truth as truth
from data_prep.boxes import read_boxes
from data_prep.colour import read_pca
from data_prep.convert_imageset import read_list
from data_prep.voc import ACTION, MAIN, Voc
from prototxt_gen import proto, text
from prototxt_gen.generate import file_texts
from prototxt_gen.sidecar import (
    ColourPca,
    DataOptions,
    PlateauOptions,
    Sidecar,
    read_sidecar,
    sidecar_text,
)
from prototxt_gen.spec_toml import load_spec, to_toml
from runtime.logs.reader import read_log
from runtime.net import Net
from tests.mutants.case import Case, Format
from tests.mutants.json_damage import json_damage
from tests.mutants.read_nets import backend, leave_data
from tests.mutants.text_damage import text_damage


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def consume(data: bytes) -> None:
        path = Path(name)
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(data)
        read(path)

    return consume


def _run_layer(layer: str) -> Callable[[Path], None]:
    net = text.parse(layer, proto.NetParameter)

    def read(_: Path) -> None:
        with Net(net, proto.TRAIN, backend()) as built:
            built.forward()
            built.forward()

    return read


_IMAGE_LAYER = (
    'layer { name: "d" type: "ImageData" top: "data" top: "label" image_data_param { '
    'source: "mutant.txt" batch_size: 2 new_height: 5 new_width: 4 } }'
)
_HDF5_LAYER = (
    'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { '
    'source: "mutant.txt" batch_size: 2 } }'
)
_SYNSETS = b"n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\nn01484850 shark\n"
_SOLUTION = (
    b"ImageId,PredictionString\nILSVRC2012_val_00000001,n01440764 1 2 30 40 n01440764 1 2 3 4\n"
    b'ILSVRC2012_val_00000002,"n01443537 5 6 7 8"\n'
)
_LABELS = {"n01440764": 0, "n01443537": 1}
_WORDS = (b"0.png", b"1.png 1", b"2.png", b"data.h5", b"n01440764", b"-1", b",", b"\t", b'"')


def _ground_truth(root: str) -> Callable[[Path], object]:
    def read(_: Path) -> None:
        synsets = truth.read_synsets(Path("words.txt"))
        truth.read_ground_truth(Path(root) / "data/truth.txt", Path(root), synsets)

    return read


def _voc(kind: str) -> Callable[[Path], object]:
    return lambda _: Voc(Path("voc")).lists("train", kind)


def prepare_lists() -> list[Case]:
    """Lists of images, HDF5 files, synsets and labels of every kind that is read."""
    leave_data()
    Path("words.txt").write_bytes(_SYNSETS)
    for kind in (MAIN, ACTION):
        (Path("voc/ImageSets") / kind).mkdir(parents=True)
    for root in ("set", "kit"):
        (Path(root) / "data").mkdir(parents=True)
        (Path(root) / "data/map_clsloc.txt").write_text("n01440764 1 tench\nn01443537 2 gold\n")
        (Path(root) / "data/truth.txt").write_text("1\n2\n1\n")
    damage = text_damage(_WORDS)
    images = (b"0.png 0\n1.png 1\n2.png 0\n", b"a b.png 3\n\nc/d.png -1\n")
    readable = (images[0],)
    return [
        Case("LISTFILE", images, damage, _file("l.txt", read_list)),
        Case("ImageData", readable, damage, _file("mutant.txt", _run_layer(_IMAGE_LAYER))),
        Case("HDF5Data", (b"data.h5\ndata.h5\n",), damage,
             _file("mutant.txt", _run_layer(_HDF5_LAYER))),
        Case("synsets", (_SYNSETS,), damage, _file("s.txt", truth.read_synsets)),
        Case("val.txt", images, damage,
             _file("v.txt", lambda path: truth.read_name_list(path, 10))),
        Case("solution", (_SOLUTION,), damage,
             _file("s.csv", lambda path: truth.read_solution(path, _LABELS))),
        Case("truth", (b"1\n2\n1\n2\n",), damage,
             _file("set/data/truth.txt", _ground_truth("set"))),
        Case("map_clsloc", (b"n01440764 1 tench\nn01443537 2 gold\n",), damage,
             _file("kit/data/map_clsloc.txt", _ground_truth("kit"))),
        Case("VOC Main", (b"000001 1\n000002 -1\n000003  0\n",), damage,
             _file("voc/ImageSets/Main/cat_train.txt", _voc(MAIN))),
        Case("VOC Action", (b"2010_000001 1 1\n2010_000002 2 -1\n",), damage,
             _file("voc/ImageSets/Action/cat_train.txt", _voc(ACTION))),
    ]  # fmt: skip


_SPEC = b"""net = "A"
name = "pets"
classes = 37
width = "1/8"
dropout = 0.5

[init]
method = "xavier"

[data]
mean_value = [103.939, 116.779, 123.68]

[data.train]
source = "train_lmdb"
short_side = [256, 512]
batch_size = 256
mirror = true

[data.test]
source = "val_lmdb"
short_side = 384

[solver]
base_lr = 0.01
max_iter = 100
stepvalue = [10, 20]

[schedule]
metric = "accuracy/top1"
patience = 3

[parallel]
shards = 4
"""
_OWN = b"""name = "own"
stages = [
  ["conv3-64", "LRN", "conv1-64"],
  ["conv3-128"],
]
fc = [256, 128]
classes = 10
crop = 32
width = 0.25
[lrn]
local_size = 5
alpha = 1e-4
"""
_TOML_WORDS = (
    b'"A"', b'"E"', b'"A-LRN"', b'"plateau"', b'"multistep"', b'"xavier"', b'"msra"', b"true",
    b"[]", b"{}", b"[[1]]", b"1979-05-27", b"07:32:00", b'"stored"', b'"conv3-64"', b'"conv0-0"',
    b"a.b.c", b'"""x"""', b"[data]", b"[[data]]", b"width = 1e999999999", b'width = "1/0"',
    b'"skip"', b'"bf16"',
)  # fmt: skip


def _read_spec(path: Path) -> None:
    spec = load_spec(path)
    to_toml(spec)
    file_texts(spec, "out")


def prepare_toml() -> list[Case]:
    """Specifications, sidecars, and the colour components of a sidecar."""
    pca = ColourPca((3.0, 2.0, 1.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    options = DataOptions((256, 512), 0.1, pca, True, 7, 4, 3)
    full = Sidecar(
        train=options,
        test=DataOptions(384, pca="pca.json", prefetch=1),
        schedule=PlateauOptions("accuracy/top5", "max", 0.2, 3, 0.01, 2, True),
        shards=8,
        weights_layers=("conv1_1", "fc6"),
    )
    sidecars = (sidecar_text(full, "solver.prototxt").encode(),)
    components = json.dumps({"eigenvalues": pca.eigenvalues, "eigenvectors": pca.eigenvectors})
    damage = text_damage(_TOML_WORDS)
    sidecar = _file("solver.verydeep.toml", lambda _: read_sidecar("solver.prototxt"))
    return [
        Case("spec", (_SPEC, _OWN), damage, _file("spec.toml", _read_spec)),
        Case("sidecar", sidecars, damage, sidecar),
        Case("pca.json", (components.encode(),), json_damage, _file("pca.json", read_pca)),
    ]


_XML = b"""<annotation><folder>n01440764</folder><filename>n01440764_10040</filename>
<size><width>500</width><height>334</height><depth>3</depth></size>
<object><name>n01440764</name><pose>Unspecified</pose><bndbox><xmin>40</xmin><ymin>44</ymin>
<xmax>340</xmax><ymax>244</ymax></bndbox></object>
<object><name>n01440764</name><bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>3</xmax><ymax>4</ymax>
</bndbox></object></annotation>
"""
_HEADED = b'<?xml version="1.0" encoding="utf-8"?>\n<!-- a comment -->\n' + _XML
_EXPANDED = (
    b'<!DOCTYPE a [<!ENTITY a "0123456789"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]>\n' + _XML.replace(b"Unspecified", b"&c;")
)
_XML_WORDS = (
    b"<object>", b"</object>", b"<bndbox/>", b"&amp;", b"&#0;", b"&#xD800;", b"&c;", b"<![CDATA[",
    b"]]>", b'<!DOCTYPE a SYSTEM "x.dtd">', b'<!ENTITY z SYSTEM "data.h5">',
    b"<!ENTITY d '&c;&c;&c;&c;&c;&c;'>", b'encoding="utf-7"', b'encoding="utf-16"',
    b'encoding="x"', b'encoding="rot13"', b'encoding="hex"', b'encoding="big5"',
    b'encoding="idna"', b'encoding="cp037"', b"1e400", b"nan", b"xmlns='x'", b"a:b",
)  # fmt: skip


def prepare_xml() -> list[Case]:
    """Annotations, with and without a head, and one with entities."""
    samples = (_XML, _HEADED, _EXPANDED)
    return [Case("boxes", samples, text_damage(_XML_WORDS), _file("b.xml", read_boxes))]


_LOG = b"""I1231 23:59:50.000000 7 solver.cpp:289] Solving toy
I1231 23:59:51.500000 7 solver.cpp:347] Iteration 0, Testing net (#0)
I1231 23:59:52.000000 7 solver.cpp:414]     Test net output #0: accuracy/top1 = 0.25
I1231 23:59:53.000000 7 solver.cpp:347] Iteration 0, Testing net (#1)
I1231 23:59:53.000000 7 solver.cpp:414]     Test net output #0: loss = 3 (* 1 = 3 loss)
I1231 23:59:55.000000 7 solver.cpp:239] Iteration 0 (0 iter/s, 1s/5 iters), loss = 2.75
I1231 23:59:55.000000 7 solver.cpp:258]     Train net output #0: loss = 2.75 (* 1 = 2.75 loss)
I1231 23:59:55.000000 7 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I0101 00:00:11.000000 7 solver.cpp:239] Iteration 10 (1 iter/s, 5s/5 iters), loss = nan
I20180101 00:00:12.300000 7 solver.cpp:239] Iteration 20 (0 iter/s, 0.1s/2 iters), loss = 1e-05
I20180101 00:00:12.300000 7 solver.cpp:258]     Train net output #0: loss = -inf
"""
_JSON_LOG = b"""{"event": "start", "iteration": 0}
{"event": "train", "iteration": 0, "seconds": 1.5, "lr": 0.1, "outputs": {"loss": 2.5}}
{"event": "test", "iteration": 5, "seconds": 2, "net": 1, "outputs": {"accuracy": 0.5}}
{"event": "train", "iteration": 5, "seconds": 3, "lr": 0.01, "outputs": {"loss": NaN}}
{"event": "snapshot", "iteration": 5, "files": ["a", "b"]}
{"event": "end", "iteration": 6, "reason": "done"}
"""
_LOG_WORDS = (
    b"Iteration 99999999999999999999", b"lr = 1e999", b"= 1.2.3", b"= ---", b"= eee", b"(#99)",
    b"null", b"Train net output #0: x = .", b"Test net output #1: y = E", b"Solving",
    b'"iteration": 1e400', b'"net": 1e309', b'"outputs": [1]', b'"outputs": "ab"',
    b'"outputs": 5', b"true", b"[]", b"{}", b'"iteration": NaN', b'"event": []',
    b'"net": -Infinity',
)  # fmt: skip


def prepare_logs() -> list[Case]:
    """Logs of Caffe and JSON lines."""
    damage = text_damage(_LOG_WORDS)
    return [
        Case("log", (_LOG,), damage, _file("log", read_log)),
        Case("JSON lines", (_JSON_LOG,), damage, _file("log.json", read_log)),
    ]


FORMATS = (
    Format("lists", prepare_lists),
    Format("toml", prepare_toml, honest_memory=True),
    Format("xml", prepare_xml),
    Format("logs", prepare_logs),
)
