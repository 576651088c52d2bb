"""Adding a step to the transform, in a temporary copy: which files it takes, and that it trains."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.architecture.test_adding import ROOT, insert, run

pytestmark = pytest.mark.slow

COPIED = ("prototxt_gen", "data_prep", "cuda_kernels", "runtime", "tests/data_prep", "tests/golden")

STEP = '''@dataclass(frozen=True)
class Rotate(Step):
    """Rotates an image by 0, 90, 180 or 270 degrees at random."""

    words = slice(8, 9)

    @classmethod
    def read(cls, settings: Settings) -> Step | None:
        return cls() if settings.param.rotate and settings.train else None

    def apply(self, sample: Sample, words: philox.Words) -> None:
        if sample.mean is not None:
            raise ProtoError(f"{sample.name}: rotate with a mean image; expected mean_value")
        sample.pixels = np.rot90(sample.pixels, _integer(words[0], 4))

    def size(self, before: Size) -> Size:
        return before if before and before[0] == before[1] else None

    def place(self, placement: Placement, words: philox.Words) -> Placement:
        raise ProtoError("rotate: boxes are not rotated; expected rotate: false in nets of boxes")


'''
FIELD = "  optional bool rotate = 900 [default = false];\n"
TEST = """
def test_images_are_rotated_by_a_word_of_their_own() -> None:
    image = photograph(6, 6)
    rotate = _read("rotate: true", True)
    plain = _apply(Transform(), image)
    for turns in range(4):
        words = np.array([0] * 8 + [_word(turns, 4)], np.uint32)
        expected = np.rot90(plain, turns, axes=(1, 2))
        np.testing.assert_array_equal(_apply(rotate, image, words), expected)
    assert _read("rotate: true").steps == ()
"""
NET = """name: "n"
layer { name: "data" type: "Data" top: "data" top: "label"
  transform_param { crop_size: 8 mirror: true rotate: true mean_value: 100 scale: 0.01 }
  data_param { source: "db" batch_size: 6 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 display: 1
snapshot: 4 snapshot_prefix: "s" random_seed: 1 solver_mode: CPU
"""
USES = """
import numpy as np
from data_prep.datum import from_array
from data_prep.lmdb_io import Writer
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net

with Writer("db") as writer:
    for number in range(12):
        image = np.random.default_rng(number).integers(0, 256, (3, 10, 12), np.uint8)
        writer.put(b"%04d" % number, from_array(image, number % 3).SerializeToString())


def batches(device, net):
    with Net(net, proto.TRAIN, create_backend(device), RunContext(seed=1)) as built:
        found = []
        for _ in range(3):
            built.forward(0, 0)
            found.append(built.blobs["data"].data.host().copy())
        return np.stack(found)


net = text.read_net("net.prototxt")
host = batches("cpu", net)
np.testing.assert_array_equal(batches("emu", net), host)
net.layer[0].transform_param.rotate = False
plain = batches("cpu", net)
turned = [
    next(turns for turns in range(4) if np.array_equal(np.rot90(image, turns, (1, 2)), rotated))
    for image, rotated in zip(plain.reshape(-1, 3, 8, 8), host.reshape(-1, 3, 8, 8))
]
assert set(turned) == {0, 1, 2, 3}, turned
"""


def test_a_transform_takes_three_files(tmp_path: Path) -> None:
    """The step, its field in the schema and its test, for training on a CPU and on a GPU."""
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    steps = tmp_path / "data_prep/transform.py"
    insert(steps, "@dataclass(frozen=True)\nclass Mirror(Step):", STEP)
    insert(steps, "    Mirror,\n    MeanValues,", "    Rotate,\n")
    schema = tmp_path / "prototxt_gen/proto/caffe.proto"
    insert(schema, "  optional bool force_color = 6", FIELD)
    test = tmp_path / "tests/data_prep/test_transform.py"
    test.write_text(test.read_text(encoding="utf-8") + "\n" + TEST, encoding="utf-8")
    (tmp_path / "net.prototxt").write_text(NET, encoding="utf-8")
    (tmp_path / "solver.prototxt").write_text(SOLVER, encoding="utf-8")
    run(tmp_path, "-c", USES)
    run(tmp_path, "-m", "runtime", "train", "--solver=solver.prototxt")
    assert (tmp_path / "s_iter_4.caffemodel").is_file()
    run(tmp_path, "-m", "pytest", "-q", "tests/data_prep/test_transform.py")
