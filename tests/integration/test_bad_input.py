"""What users get wrong, through the command line: a message, exit status 2, nothing lost."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prototxt_gen import files
from runtime.cli.main import main

WEIGHTS = "VGG-A-demo_iter_2.caffemodel"
Edit = Callable[[str], str]


@pytest.fixture
def fails(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Run a verb in a folder of its own and compare its last message with a pattern."""
    monkeypatch.chdir(tmp_path)

    def run(pattern: str, *argv: str) -> None:
        assert main(argv) == 2
        said = capsys.readouterr().err
        assert re.search(pattern, said.rpartition(f"verydeep {argv[0]}: ")[2]), said[-600:]
        assert "Traceback" not in said

    return run


def solver_in(folder: Path, finished: Path, net: Edit = str, solver: Edit = str) -> str:
    """A copy of the finished run's solver and net, edited."""
    text = (finished / "net" / "train_val.prototxt").read_text()
    (folder / "train_val.prototxt").write_text(net(text))
    text = (finished / "net" / "solver.prototxt").read_text()
    text = re.sub(r'^net: ".*"', f'net: "{folder}/train_val.prototxt"', text, flags=re.M)
    text = re.sub(r'^snapshot_prefix: ".*"', f'snapshot_prefix: "{folder}/x"', text, flags=re.M)
    (folder / "solver.prototxt").write_text(solver(text))
    return str(folder / "solver.prototxt")


def deploy_in(folder: Path, finished: Path, edit: Edit) -> str:
    text = (finished / "net" / "deploy.prototxt").read_text()
    changed = edit(text)
    assert changed != text
    (folder / "deploy.prototxt").write_text(changed)
    return str(folder / "deploy.prototxt")


def test_a_missing_database(fails: Callable[..., None], tmp_path: Path, finished: Path) -> None:
    edit = lambda t: re.sub(r'source: ".*train_lmdb"', 'source: "nowhere"', t)  # noqa: E731
    solver = solver_in(tmp_path, finished, edit)
    fails(r"nowhere: no such database; .*convert_imageset", "train", "--solver", solver)


def test_a_corrupt_database(fails: Callable[..., None], tmp_path: Path, finished: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").write_bytes(bytes(range(256)) * 64)
    edit = lambda t: re.sub(r'source: ".*train_lmdb"', 'source: "db"', t)  # noqa: E731
    solver = solver_in(tmp_path, finished, edit)
    fails(r"db: corrupt LMDB: .*make it again", "train", "--solver", solver)


def test_a_truncated_caffemodel(fails: Callable[..., None], tmp_path: Path, finished: Path) -> None:
    whole = (finished / "net" / WEIGHTS).read_bytes()
    (tmp_path / "t.caffemodel").write_bytes(whole[: len(whole) // 2])
    model = str(finished / "net" / "train_val.prototxt")
    arguments = ("test", "--model", model, "--weights", "t.caffemodel", "--iterations", "1")
    fails(r"^t\.caffemodel: byte \d+: the file ends too early; expected at least", *arguments)


@pytest.mark.parametrize(
    ("old", "new", "pattern"),
    [
        ("kernel_size", "kernel_sizes", r"deploy\.prototxt:\d+:\d+: .* no field 'kernel_sizes'"),
        ('"Convolution"', '"Convolutoin"', r":\d+:\d+: layer 'conv1_1': unknown layer type .*did"),
        ('bottom: "conv1_1"', 'bottom: "cnv1_1"', r"unknown bottom blob 'cnv1_1' .*did you mean"),
        ("num_output: 512", "num_output: 500", r"Cannot copy param 0 weights from layer 'fc6'; sh"),
    ],
)
def test_a_wrong_prototxt(
    fails: Callable[..., None], tmp_path: Path, finished: Path, old: str, new: str, pattern: str
) -> None:
    model = deploy_in(tmp_path, finished, lambda text: text.replace(old, new, 1))
    image = str(finished / "data" / "images" / "val" / "ILSVRC2012_val_00000001.JPEG")
    weights = str(finished / "net" / WEIGHTS)
    fails(pattern, "classify", image, "--model", model, "--weights", weights)


def test_an_image_that_does_not_decode(
    fails: Callable[..., None], tmp_path: Path, finished: Path
) -> None:
    (tmp_path / "junk.jpg").write_text("junk")
    model, weights = (str(finished / "net" / name) for name in ("deploy.prototxt", WEIGHTS))
    pattern = r"^junk\.jpg: the image does not decode .*expected a whole JPEG"
    fails(pattern, "classify", "junk.jpg", "--model", model, "--weights", weights)


def test_labels_outside_the_classes(
    fails: Callable[..., None], tmp_path: Path, finished: Path
) -> None:
    solver = solver_in(
        tmp_path, finished, lambda t: t.replace("num_output: 10\n", "num_output: 5\n")
    )
    fails(
        r"label \d at position \d+ of blob .*; expected 0 \.\. 4; .*num_output",
        "train",
        "--solver",
        solver,
    )


def test_a_loss_that_becomes_nan(
    fails: Callable[..., None], tmp_path: Path, finished: Path
) -> None:
    def edit(text: str) -> str:
        rest = re.sub(r"^(base_lr|max_iter): .*", "", text, flags=re.M)
        return rest + "base_lr: 1e20\nmax_iter: 9\n"

    solver = solver_in(tmp_path, finished, solver=edit)
    fails(
        r"^iteration \d: the loss is \S+; expected a finite number; divide base_lr",
        "train",
        "--solver",
        solver,
    )


def test_a_folder_that_cannot_be_written(
    fails: Callable[..., None], tmp_path: Path, finished: Path
) -> None:
    (tmp_path / "file").write_text("")
    edit = lambda t: re.sub(r'snapshot_prefix: ".*"', 'snapshot_prefix: "file/x"', t)  # noqa: E731
    solver = solver_in(tmp_path, finished, solver=edit)
    fails(r"^Cannot write to snapshot prefix 'file/x'", "train", "--solver", solver)


def test_a_full_disk_at_the_last_snapshot(
    fails: Callable[..., None], tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solver = solver_in(tmp_path, finished)
    assert main(["train", "--solver", solver]) == 0
    before = {path: path.read_bytes() for path in tmp_path.glob("x_iter_2.*")}
    assert len(before) == 3

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    fails(
        r"cannot be written: No space left on device; free some space", "train", "--solver", solver
    )
    assert {path: path.read_bytes() for path in tmp_path.glob("x_iter_2.*")} == before
    assert not list(tmp_path.glob(".*"))


def test_a_file_of_another_program_in_the_place_of_a_snapshot(
    fails: Callable[..., None], tmp_path: Path, finished: Path
) -> None:
    solver = solver_in(tmp_path, finished)
    (tmp_path / "x_iter_2.caffemodel").write_bytes(b"somebody's")
    fails(r"x_iter_2\.caffemodel: exists, and this program did not", "train", "--solver", solver)
    assert (tmp_path / "x_iter_2.caffemodel").read_bytes() == b"somebody's"
