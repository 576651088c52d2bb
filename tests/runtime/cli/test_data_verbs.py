"""convert_imageset, compute_image_mean and data info as a person calls them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_prep.colour import read_pca
from data_prep.datum import from_encoded
from data_prep.lmdb_io import Reader, Writer
from data_prep.mean_file import read_mean
from runtime.cli.main import main
from runtime.logs.glog import close_logging
from tests.data_prep.small_images import jpeg, photograph


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Six images in `images`, listed in list.txt, below the working folder."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.jpg").write_bytes(jpeg(photograph(20, 24, number)))
    (tmp_path / "list.txt").write_text("".join(f"{n}.jpg {n % 3}\n" for n in range(6)))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    close_logging()


CONVERT = ["convert_imageset", "images/", "list.txt", "db"]


def test_the_three_verbs_in_a_row(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CONVERT, "-encoded", "-short_side=16"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "db: 6 records, 0 images skipped\n"
    assert "A total of 6 images." in shown.err
    assert "Processed 6 files." in shown.err
    assert main(["data", "info", "db"]) == 0
    shown = capsys.readouterr().out
    assert "db: 6 records, " in shown
    assert "encoding: 6 jpeg" in shown
    assert "size: 16x19 (height x width), all alike" in shown
    assert "labels: 0 to 2, 3 classes of 2 to 2 records" in shown
    assert main(["compute_image_mean", "db", "mean.binaryproto", "--pca", "pca.json"]) == 0
    shown = capsys.readouterr().out
    mean = read_mean("mean.binaryproto")
    assert mean.shape == (3, 16, 19)
    assert shown.startswith("Number of channels: 3\nmean_value channel [0]: ")
    assert float(shown.split()[-1]) == pytest.approx(mean[2].mean(), rel=1e-4)
    assert len(read_pca("pca.json").eigenvalues) == 3


def test_results_for_machines(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "images" / "3.jpg").write_bytes(b"broken")
    assert main([*CONVERT, "--on_error", "skip", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], len(result["skipped"])) == (5, 1)
    assert main(["data", "info", "--json", "db"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == {"0": 1, "1": 2, "2": 2}
    assert main(["compute_image_mean", "--json", "db"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], result["mean_image_shape"]) == (5, [3, 20, 24])
    assert np.shape(result["mean_value"]) == (3,)


@pytest.mark.parametrize(
    ("flag", "gray"),
    [("--gray", True), ("-gray=true", True), ("--gray=1", True), ("--gray=false", False),
     ("-nogray", False), ("--gray=0", False)],
)  # fmt: skip
def test_boolean_flags_are_gflags(images: Path, flag: str, gray: bool) -> None:
    assert main(["convert_imageset", flag, "images/", "list.txt", "db"]) == 0
    with Reader("db") as reader:
        assert len(reader.get(0)) == pytest.approx(20 * 24 * (1 if gray else 3), abs=20)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([*CONVERT[:2], "absent.txt", "db"], "absent.txt: cannot be read: No such file"),
        ([*CONVERT, "--backend", "leveldb"], "backend 'leveldb'; expected lmdb"),
        ([*CONVERT[:3], "images"], "images: exists already; expected a new folder"),
        (["convert_imageset", "nowhere/", "list.txt", "db"], "0.jpg: cannot be read: No such file"),
        (["compute_image_mean", "absent"], "absent: no such database"),
        (["compute_image_mean", "--backend=leveldb", "x"], "backend 'leveldb'; expected lmdb"),
        (["data", "info", "images"], "images: not an LMDB database: there is no data.mdb in it"),
    ],
)
def test_a_user_s_error_is_status_2(
    images: Path, argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_a_mean_image_needs_one_size(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (images / "images" / "3.jpg").write_bytes(jpeg(photograph(30, 20)))
    assert main(CONVERT) == 0
    assert main(["compute_image_mean", "db", "mean.binaryproto"]) == 2
    assert "db: the images differ in size; expected one size" in capsys.readouterr().err
    assert not Path("mean.binaryproto").exists()
    assert main(["compute_image_mean", "db"]) == 0
    cropped = ["compute_image_mean", "--short_side=12", "--crop=10", "db", "mean.binaryproto"]
    assert main(cropped) == 0
    assert read_mean("mean.binaryproto").shape == (3, 10, 10)


def test_info_of_a_database_with_bad_records(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CONVERT, "--encoded"]) == 0
    with Writer(images / "db", append=True) as writer:
        writer.put(b"00000006_6.jpg", from_encoded(b"broken", 0).SerializeToString())
    capsys.readouterr()
    assert main(["data", "info", "db"]) == 1
    shown = capsys.readouterr().out
    assert "1 records cannot be used:\n  record 00000006_6.jpg: the image does not dec" in shown


def test_a_list_from_a_pipe(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a shell's process substitution gives it."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_text, args=("1.jpg 1\n2.jpg 0\n",))
    writer.start()
    assert main(["convert_imageset", "images/", "pipe", "db"]) == 0
    writer.join()
    assert capsys.readouterr().out == "db: 2 records, 0 images skipped\n"


def test_a_list_that_leaves_its_root(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.txt").write_text("../images/1.jpg 1\n../list.txt 0\n")
    assert main([*CONVERT, "--confine-lists"]) == 2
    assert "list.txt: it lies outside of its root folder; expected" in capsys.readouterr().err
    assert not Path("db").exists()


def test_a_damaged_database_is_not_continued(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its table of free pages would end the process within liblmdb."""
    assert main(CONVERT) == 0
    content = bytearray((images / "db" / "data.mdb").read_bytes())
    content[44] = content[4096 + 44] = 4
    (images / "db" / "data.mdb").write_bytes(content)
    capsys.readouterr()
    assert main([*CONVERT, "--resume"]) == 2
    assert "db: corrupt LMDB: its table of free pages has the flags" in capsys.readouterr().err
    assert (images / "db" / "data.mdb").read_bytes() == content
    assert main(["data", "info", "db"]) == 0


def test_a_conversion_that_was_killed_at_its_start_is_begun_again(images: Path) -> None:
    (images / "db").mkdir()
    assert main([*CONVERT, "--resume"]) == 0
    with Reader("db") as reader:
        assert len(reader) == 6


def test_an_interrupted_database(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/4.jpg").rename("images/moved.jpg")
    assert main(CONVERT) == 2
    assert "continue with --resume" in capsys.readouterr().err
    for command in (["data", "info", "db"], ["compute_image_mean", "db", "mean.binaryproto"]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert "db: incomplete" in err and "convert_imageset --resume" in err
    with Writer("db", append=True) as writer:
        writer.put(b"00000000_0.jpg", from_encoded(b"x", 0).SerializeToString())
    assert main(["data", "info", "db"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("INCOMPLETE: 1 records for a list of 6 images; ")
    assert "continue with convert_imageset --resume" in shown
    assert main(["data", "info", "db", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["complete"] is False
    assert main([*CONVERT, "--resume", "--gray"]) == 2
    assert "--gray was False, now True" in capsys.readouterr().err
    Path("images/moved.jpg").rename("images/4.jpg")
    assert main([*CONVERT, "--resume"]) == 0
    capsys.readouterr()
    assert main(["data", "info", "db", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["complete"] is True and result["options"]["images"] == 6
