"""Lists and label files as people, editors and other systems write them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.convert_imageset import read_list
from data_prep.ilsvrc_truth import read_ground_truth, read_name_list, read_solution, read_synsets
from data_prep.text_lines import integer, read_lines, read_text, split_first, split_last
from data_prep.voc import _read_list as read_voc_list
from prototxt_gen.errors import DataError
from prototxt_gen.regular_file import RegularFile, check_below

MARK = b"\xef\xbb\xbf"
SYNSETS = (("n1", "one, two"), ("n2", "n2"), ("n3", "three\u2028four"))


def written(folder: Path, content: bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mark", [b"", MARK], ids=["", "mark"])
@pytest.mark.parametrize(
    "end", [b"\n", b"\r\n", b" \t\n", b"\n\n\n"], ids=["LF", "CRLF", "sp", "3"]
)
@pytest.mark.parametrize("last", [True, False], ids=["ended", "not ended"])
def test_lists_of_images(tmp_path: Path, mark: bytes, end: bytes, last: bool) -> None:
    wanted = [
        (b"a b/c d.jpg 3", b"a b/c d.jpg", 3),
        (b"tab\tin name.jpg -1", b"tab\tin name.jpg", -1),
        (b"caf\xe9.jpg\t7", b"caf\xe9.jpg", 7),
        ("ü\u2028\x0b\x85.jpg 0".encode(), "ü\u2028\x0b\x85.jpg".encode(), 0),
        (b"  leading.jpg +5", b"  leading.jpg", 5),
        (b"two  spaces.jpg  \t 6", b"two  spaces.jpg", 6),
        (b"007 008", b"007", 8),
    ]
    lines = end.join(line for line, _, _ in wanted) + (end if last else b"")
    entries = read_list(written(tmp_path, mark + lines))
    assert [(os.fsencode(name), label) for name, label in entries] == [
        (name, label) for _, name, label in wanted
    ]


WRONG = [
    b"x.jpg",
    b"x.jpg one",
    b"x.jpg 1.5",
    b"x.jpg 1_0",
    b"x.jpg 2147483648",
    b" 3",
    b"3",
    b"\t3",
    b"x.jpg " + b"9" * 100_000,
    "x.jpg \u0663".encode(),
    "x.jpg \u00b2".encode(),
    "x.jpg\u00a03".encode(),
    b"x.jpg 0x1",
    b"x.jpg --1",
    b"x.jpg 1e3",
    b"x.jpg 3,",
]


@pytest.mark.parametrize("line", WRONG)
@pytest.mark.parametrize("before", [b"ok.jpg 0\n", MARK + b"\n\r\n \t\nok.jpg 0\r\n"])
def test_a_wrong_line_is_named_by_its_number(tmp_path: Path, line: bytes, before: bytes) -> None:
    path = written(tmp_path, before + line + b"\nok.jpg 1\n")
    number = before.count(b"\n") + 1
    with pytest.raises(
        DataError, match=rf"list\.txt:{number}: .*; expected a file name, a space and an integer la"
    ):
        read_list(path)


@pytest.mark.parametrize("mark", [b"", MARK], ids=["", "mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"], ids=["LF", "CRLF", "empty"])
@pytest.mark.parametrize("between", [b" ", b"\t", b"  \t"], ids=["space", "tab", "both"])
def test_synsets(tmp_path: Path, mark: bytes, end: bytes, between: bytes) -> None:
    lines = [b"n1" + between + b"one, two", b"n2", b"n3" + between + "three\u2028four".encode()]
    path = written(tmp_path, mark + end.join(lines) + end)
    assert tuple((each.wnid, each.words) for each in read_synsets(path)) == SYNSETS


def test_words_that_are_not_utf8_keep_their_bytes(tmp_path: Path) -> None:
    (synset,) = read_synsets(written(tmp_path, b"n1 caf\xe9\n"))
    assert synset.words.encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_a_class_named_twice_is_named_by_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, b"\nn1 a\r\n\nn2 b\nn1 c\n")
    with pytest.raises(DataError, match=r"list\.txt:5: n1 occurs twice; expected each class once"):
        read_synsets(path)


@pytest.mark.parametrize("mark", [b"", MARK], ids=["", "mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n"], ids=["LF", "CRLF", "empty"])
def test_the_other_lists(tmp_path: Path, mark: bytes, end: bytes) -> None:
    def lines(*each: bytes) -> Path:
        return written(tmp_path, mark + end.join(each) + end)

    names = read_name_list(lines(b"val/a b.JPEG 1", b"c\xe9.JPEG\t0"), 2)
    assert {os.fsencode(name): label for name, label in names.items()} == {
        b"a b.JPEG": 1, b"c\xe9.JPEG": 0}  # fmt: skip
    label_of = {"n1": 0, "n2": 1}
    solution = read_solution(
        lines(b"ImageId,Prediction", b"i1,n2 1 2 3 4 ", b"i2,n1 5 6 7 8"), label_of
    )
    assert solution == {"i1.JPEG": 1, "i2.JPEG": 0}
    (tmp_path / "synsets.txt").write_text("n1\nn2\n")
    synsets = read_synsets(tmp_path / "synsets.txt")
    (tmp_path / "map_clsloc.txt").write_bytes(mark + end.join([b"n2 1 b", b"n1 2 a"]) + end)
    assert read_ground_truth(lines(b"1", b"2", b" 1"), tmp_path, synsets) == [1, 0, 1]
    (listed, _) = read_voc_list(lines(b"000001  1", b"000002\t-1"), "Main")
    assert (listed.image, listed.target) == ("000001", 1)


@pytest.mark.parametrize(
    ("read", "lines", "number"),
    [
        (lambda p: read_name_list(p, 3), b"\na 1\n\nb 3\n", 4),
        (lambda p: read_name_list(p, 3), "\na \u00b2\n".encode(), 2),
        (lambda p: read_solution(p, {"n1": 0}), b"ImageId,P\n\ni1,n2 1\n", 3),
        (lambda p: read_solution(p, {"n1": 0}), b"\ni1," + b"x" * 200_000, 2),
        (lambda p: read_voc_list(p, "Main"), b"\n\n000001 2\n", 3),
        (lambda p: read_voc_list(p, "Action"), b"000001 \xc2\xb2 1\n", 1),
        (lambda p: read_ground_truth(p, p.parent, read_synsets(p.parent / "s")), b"1\n\n2\n", 3),
        (lambda p: read_ground_truth(p, p.parent, read_synsets(p.parent / "s")), b"9" * 5000, 1),
    ],
)
def test_lines_are_counted_from_the_top(
    tmp_path: Path, read: Callable[[Path], object], lines: bytes, number: int
) -> None:
    (tmp_path / "s").write_text("n1\n")
    with pytest.raises(DataError, match=rf"list\.txt:{number}: "):
        read(written(tmp_path, lines))


def test_empty_lines_may_count(tmp_path: Path) -> None:
    path = written(tmp_path, MARK + b"cat\r\n\r\n dog  \n\n\n")
    assert read_lines(path) == [(1, "cat"), (3, " dog")]
    assert read_lines(path, keep_empty=True) == [(1, "cat"), (2, ""), (3, " dog")]
    assert read_lines(written(tmp_path, b"")) == []
    assert read_lines(written(tmp_path, MARK)) == []


def test_words_of_a_line() -> None:
    assert split_last("a b\t3") == ("a b", "3")
    assert split_last("a\tb  3") == ("a\tb", "3")
    assert split_last("3") == ("", "3")
    assert split_first("\t a \t b c") == ("a", "b c")
    assert split_first("a") == ("a", "")
    assert [integer(text, -5, 5) for text in ("-5", "+5", "05", "6", "", " 5", "5\n", "٣")] == [
        -5, 5, 5, None, None, None, None, None]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a 1\nb\0 2\n", r"list\.txt:2: a zero byte; expected a text file"),
        ("a 1\n".encode("utf-16"), r"list\.txt: not a text file in UTF-8; .*got UTF-16"),
        ("a 1\n".encode("utf-16-be"), r"list\.txt:1: a zero byte"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"list\.txt: an HDF5 file; expected a text file"),
    ],
)  # fmt: skip
def test_what_is_no_text(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_text(written(tmp_path, content))


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a named pipe"),
        (os.mkdir, "a folder"),
        (_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device"),
        (lambda path: path.symlink_to("/absent"), "No such file or directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    ],
)
def test_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("special")
    make(path)
    with pytest.raises(DataError, match=rf"^special: cannot be read: .*{kind}"):
        read_lines(path)
    with pytest.raises(DataError, match=rf"^special: the labels cannot be read: .*{kind}"):
        RegularFile(path, what="the labels").check()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, os.fsdecode(b"\xff") * 300])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read: "):
        RegularFile(tmp_path / name).read()


def test_what_changes_under_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that takes the place of a file after the check is opened without waiting."""
    path = written(tmp_path, b"a 1\n")
    check = RegularFile.check

    def replaced(file: RegularFile) -> None:
        check(file)
        path.unlink()
        os.mkfifo(path)

    monkeypatch.setattr(RegularFile, "check", replaced)
    with pytest.raises(DataError, match="it is a named pipe; expected a regular file"):
        read_lines(path)


def test_pipes_where_they_are_permitted(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a.jpg 1\r\nb.jpg 2\n",))
    writer.start()
    assert read_list(path, pipe=True) == [("a.jpg", 1), ("b.jpg", 2)]
    writer.join()
    with pytest.raises(DataError, match="it is a character device"):
        read_list("/dev/null", pipe=True)


def test_files_below_a_folder(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "deep").mkdir(parents=True)
    (tmp_path / "rooted").mkdir()
    for path in (root / "a", root / "deep" / "b", tmp_path / "c", tmp_path / "rooted" / "d"):
        path.write_text("")
    (root / "inner").symlink_to("deep/b")
    (root / "outer").symlink_to(tmp_path / "c")
    (root / "folder").symlink_to(tmp_path)
    inside = [root / "a", root / "deep" / ".." / "a", root / "inner", root / "absent",
              tmp_path / "rooted" / ".." / "root" / "a"]  # fmt: skip
    check_below(inside, root)
    (tmp_path / "alias").symlink_to(root)
    check_below([root / "a", tmp_path / "alias" / "a"], tmp_path / "alias")
    for path in (tmp_path / "c", root / ".." / "c", root / "outer", root / "folder" / "c",
                 tmp_path / "rooted" / "d", "/etc/passwd"):  # fmt: skip
        with pytest.raises(
            DataError, match=f"^{path}: it lies outside of its root folder; expecte"
        ):
            check_below([root / "a", path], root)


def test_names_in_a_locale_that_is_not_utf8(tmp_path: Path) -> None:
    """The bytes of a name open its file, in every locale."""
    name = b"caf\xc3\xa9 \xe9.txt"
    written(tmp_path, name + b" 3\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); "
        "from pathlib import Path; from data_prep.convert_imageset import read_list; "
        "import data_prep.text_lines as t; "
        "t.sys = type('S', (), {'getfilesystemencoding': staticmethod(lambda: 'latin-1')}); "
        "t.os = type('O', (), {'fsdecode': staticmethod(lambda b: b.decode('latin-1'))}); "
        "(name, label), = read_list(sys.argv[2]); sys.stdout.buffer.write(name.encode('latin-1'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parents[2]), str(tmp_path / "list.txt")],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == name
