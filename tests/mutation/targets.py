"""What reads which files: the formats of a campaign.

A target has whole files to begin with, and a function that reads a damaged one. That function must
either succeed or raise a VerydeepError.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_prep.boxes import read_boxes
from data_prep.colour import read_pca
from data_prep.convert_imageset import read_list
from data_prep.ilsvrc_truth import (
    Synset,
    read_ground_truth,
    read_name_list,
    read_solution,
    read_synsets,
)
from data_prep.voc import ACTION, MAIN, Voc
from prototxt_gen import generate, text
from prototxt_gen.errors import VerydeepError
from prototxt_gen.sidecar import (
    ColourPca,
    DataOptions,
    PlateauOptions,
    Sidecar,
    read_sidecar,
    sidecar_text,
)
from prototxt_gen.spec import builtin_spec, with_values
from prototxt_gen.spec_toml import load_spec, to_toml
from runtime.evaluate.cache import PosteriorCache
from runtime.logs.reader import read_log
from runtime.paper.features.extraction import Features
from runtime.paper.features.feature_file import read_features, write_features
from runtime.paper.run_folder import RunFolder
from runtime.paper.setting import read_setting
from runtime.solvers.best import BestScore
from runtime.solvers.plateau import PlateauState
from runtime.solvers.resume_state import FileSum, ResumeState


@dataclass(frozen=True)
class Target:
    """A format: whole files, the name that a damaged one has, and its reader."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    name: str = "file"


TARGETS: dict[str, Target] = {}


_Read = Callable[[Path], object]


def _target(
    kind: str, seeds: Callable[[], list[bytes]], name: str = "file"
) -> Callable[[_Read], _Read]:
    """Enter a reader."""

    def register(read: Callable[[Path], object]) -> Callable[[Path], object]:
        TARGETS[kind] = Target(seeds, read, name)
        return read

    return register


def _specs() -> list[bytes]:
    own = 'name = "own"\nstages = [["conv3-8", "LRN"], ["conv3-16"]]\nwidth = "1/8"\n'
    values = {"solver.lr_policy": "multistep", "solver.stepvalue": (5, 9), "width": Fraction(3, 7)}
    texts = [own, to_toml(builtin_spec("A")), to_toml(with_values(builtin_spec("D"), values))]
    return [each.encode() for each in texts]


@_target("toml", _specs)
def _read_spec(path: Path) -> object:
    return generate.file_texts(load_spec(path), "out")


def _sidecars() -> list[bytes]:
    pca = ColourPca((3.0, 2.0, 1.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    train = DataOptions((256, 512), 0.1, pca, True, 5, 2, 7, "skip")
    full = Sidecar(train, DataOptions(384), PlateauOptions(), 8, ("conv1", "fc8"), "tf32")
    return [sidecar_text(each, "solver.prototxt").encode() for each in (full, Sidecar())]


@_target("sidecar", _sidecars, "solver.verydeep.toml")
def _read_sidecar(path: Path) -> object:
    return read_sidecar(path.with_name("solver.prototxt"))


def _states() -> list[bytes]:
    files = [{"name": f"a.{kind}", "bytes": 5, "sha256": "0" * 64} for kind in ("x", "y")]
    plateau = PlateauState(0.5, 3, 1, 2).to_json()
    best = {"name": "accuracy", "value": 0.5, "iteration": 4}
    state = ResumeState(6, 7, 1, 12, [3, 4], plateau, best, files=[FileSum(**f) for f in files])
    return [json.dumps(asdict(state), indent=indent).encode() for indent in (None, 1)]


@_target("state", _states)
def _read_state(path: Path) -> object:
    state = ResumeState.read(path)
    state.fault(path.parent)
    BestScore(None).from_json(state.best)
    return None if state.plateau is None else PlateauState.from_json(state.plateau, "state")


_CAFFE_LOG = b"""I1231 23:59:55.000000 7 solver.cpp:289] Solving toy
I1231 23:59:55.100000 7 solver.cpp:347] Iteration 0, Testing net (#0)
I1231 23:59:55.200000 7 solver.cpp:414]     Test net output #0: accuracy = 0.25
I1231 23:59:55.200000 7 solver.cpp:414]     Test net output #1: loss = 2.3 (* 1 = 2.3 loss)
I1231 23:59:55.300000 7 solver.cpp:239] Iteration 0 (0 iter/s, 0.1s/2 iters), loss = 2.31
I1231 23:59:55.300000 7 solver.cpp:258]     Train net output #0: loss = 2.31 (* 1 = 2.31 loss)
I1231 23:59:55.400000 7 sgd_solver.cpp:112] Iteration 0, lr = 0.01
I20180101 00:00:05.300000 7 solver.cpp:239] Iteration 2 (0 iter/s, 0.1s/2 iters), loss = nan
I20180101 00:00:05.300000 7 solver.cpp:258]     Train net output #0: loss = -inf
I20180101 00:00:05.400000 7 sgd_solver.cpp:112] Iteration 2, lr = 1e-05
"""


def _logs() -> list[bytes]:
    events = [
        {"event": "start", "iteration": 0, "net": "toy"},
        {"event": "test", "iteration": 0, "net": 1, "outputs": {"acc": 0.5}, "seconds": 1},
        {"event": "train", "iteration": 2, "lr": 0.1, "outputs": {"loss": None}, "seconds": 1.5},
        {"event": "snapshot", "iteration": 2, "files": ["a", "b"]},
        {"event": "end", "iteration": 3, "reason": "done"},
    ]
    return [_CAFFE_LOG, "".join(json.dumps(event) + "\n" for event in events).encode()]


@_target("log", _logs)
def _read_log(path: Path) -> object:
    return read_log(path)


_LISTS = [
    b"a/b c.jpg 0\nd.jpg 7\n\ne.jpg -3\n",
    b"n01440764 tench, Tinca tinca\nn01443537 goldfish\n",
    b"ImageId,PredictionString\nval_1,n01440764 1 2 3 4\nval_2,n01443537 5 6 7 8 n01440764 1\n",
    b"1\n2\n2\n1\n",
    b"000001 1\n000002 -1\n000003 0\n",
    b"2010_000001 1 1\n2010_000002 2 -1\n",
]


@_target("list", lambda: list(_LISTS), "list_train.txt")
def _read_list(path: Path) -> object:
    """Every reader of lists gets every list."""
    synsets = (Synset("n01440764", "tench"), Synset("n01443537", "goldfish"))
    labels = {"n01440764": 0, "n01443537": 1}
    for kind in (MAIN, ACTION):
        folder = path.parent / "voc" / "ImageSets" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    voc = Voc(path.parent / "voc")
    return _each(
        lambda: read_list(path),
        lambda: read_name_list(path, 8),
        lambda: read_synsets(path),
        lambda: read_solution(path, labels),
        lambda: read_ground_truth(path, path.parent, synsets),
        lambda: voc.lists("train"),
        lambda: voc.lists("train", ACTION),
    )


def _each(*readers: Callable[[], object]) -> None:
    refused: list[VerydeepError] = []
    for read in readers:
        try:
            read()
        except VerydeepError as error:
            refused.append(error)
    if len(refused) == len(readers):
        raise refused[0]


_XML = b"""<annotation>
\t<folder>val</folder><size><width>500</width><height>375</height></size>
\t<object><name>n01440764</name><bndbox>
\t\t<xmin>1</xmin><ymin>2</ymin><xmax>50</xmax><ymax>60</ymax></bndbox></object>
\t<object><name>dog &amp; cat</name><part><name>head</name></part><bndbox>
\t\t<xmin>1.5</xmin><ymin>2</ymin><xmax>5e1</xmax><ymax>60</ymax></bndbox></object>
</annotation>
"""
_LOL = b'<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "lol"><!ENTITY c "&b;&b;">]>\n'


@_target("xml", lambda: [_XML, _LOL + _XML, b'<?xml version="1.0" encoding="cp1252"?>' + _XML])
def _read_xml(path: Path) -> object:
    return read_boxes(path)


def _prototxts() -> list[bytes]:
    spec = with_values(builtin_spec("A-LRN"), {"width": Fraction(1, 8)})
    texts = generate.file_texts(spec, "out")
    nets = [content.encode() for path, content in texts.items() if path.suffix == ".prototxt"]
    return [net for net in nets if b"base_lr" not in net] + [_V1, _V0]


_V1 = b"""name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }
layers { name: "s" type: SOFTMAX bottom: "c" top: "s" } # end
"""
_V0 = b"""name: "older" layers { layer { name: "c" type: "conv" num_output: 2 kernelsize: 3 pad: 1
  biasterm: false } bottom: "data" top: "c" } input: "data" input_dim: [1, 3, 8, 8]
"""


@_target("prototxt", _prototxts)
def _read_net(path: Path) -> object:
    return text.to_text(text.read_net(path))


_SOLVER = b"""net: "train_val.prototxt"  # the net
test_iter: 10 test_interval: 500 base_lr: 0.01 lr_policy: "multistep" gamma: 0.1
stepvalue: 1000 stepvalue: 2000 momentum: 0.9 weight_decay: 5e-4 display: 20 max_iter: 4000
snapshot: 100 snapshot_prefix: "a/b" solver_mode: CPU random_seed: 1 solver_type: NESTEROV
train_state { level: 1 stage: "x" stage: 'y' "z" } regularization_type: "L1"
"""


@_target("solver", lambda: [_SOLVER])
def _read_solver(path: Path) -> object:
    return text.to_text(text.read_solver(path))


@_target(
    "pca",
    lambda: [json.dumps({"eigenvalues": [3.0, 2, 1], "eigenvectors": [[1.0, 0, 0]] * 3}).encode()],
)
def _read_pca(path: Path) -> object:
    return read_pca(path)


def _notes() -> list[bytes]:
    note = {"finished": True, "made_of": {"spec": "x"}, "weights": "w", "model": "m"}
    note |= {"iterations": 5, "weights_sha256": "0"}
    return [json.dumps(note, indent=2).encode(), b'{"data": "demo"}']


@_target("note", _notes, "run.json")
def _read_note(path: Path) -> object:
    folder = path.parent / "runs" / "x"
    folder.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes()
    (folder / "w").write_bytes(b"")
    (folder / "run.json").write_bytes(content)
    (path.parent / "setting.json").write_bytes(content)
    return _each(lambda: RunFolder(path.parent).finished("x"), lambda: read_setting(path.parent))


_KEY = {"net": "toy", "scale": 3}
_CACHED = PosteriorCache(Path()).path(_KEY).name


def _caches() -> list[bytes]:
    values, labels = np.linspace(0, 1, 12).reshape(4, 3), np.arange(4) % 3
    files = []
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, key=np.array(json.dumps(_KEY, sort_keys=True)), values=values, labels=labels)
        files.append(stream.getvalue())
    return files


@_target("cache", _caches, _CACHED)
def _read_cache(path: Path) -> object:
    found = PosteriorCache(path.parent).load(_KEY)
    return None if found is None else found.error(1)


def _features(suffix: str) -> list[bytes]:
    attributes = dict.fromkeys(("net", "weights_sha256", "aggregate", "layer", "regions"), "x")
    features = Features(
        ("a", "b"),
        np.ones((2, 3), np.float32),
        np.arange(2),
        {**attributes, "scales": [1, 2], "flip": True},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"f{suffix}"
        write_features(path, features)
        return [path.read_bytes()]


@_target("features-npz", lambda: _features(".npz"), "f.npz")
def _read_features_npz(path: Path) -> object:
    return read_features(path)


@_target("features-h5", lambda: _features(".h5"), "f.h5")
def _read_features_h5(path: Path) -> object:
    return read_features(path)


def _mats() -> list[bytes]:
    from scipy.io import savemat

    rows = np.zeros(2, dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    rows[0], rows[1] = (1.0, "n01440764"), (2.0, "n01443537")
    files = []
    for compress in (False, True):
        stream = io.BytesIO()
        savemat(stream, {"synsets": rows.reshape(-1, 1)}, do_compression=compress)
        files.append(stream.getvalue())
    return files


@_target("mat", _mats, "meta.mat")
def _read_mat(path: Path) -> object:
    truth = path.parent / "truth.txt"
    truth.write_text("1\n2\n")
    synsets = (Synset("n01440764", "tench"), Synset("n01443537", "goldfish"))
    return read_ground_truth(truth, path.parent, synsets)
