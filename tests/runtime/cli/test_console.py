"""Standard streams that are closed, full, or lack characters, as the command line meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prototxt_gen.errors import VerydeepError
from runtime.cli import summary
from runtime.cli.console import Console, beside
from runtime.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


def _prints(text: str) -> object:
    def run(args: object) -> int:
        print(text)
        return 0

    return run


@pytest.mark.parametrize("text", ["short", "long\n" * 10_000])
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_full_disk_is_one_line_and_status_1(
    text: str, unbuffered: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if unbuffered:
        stream.reconfigure(write_through=True, line_buffering=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(summary, "run", _prints(text))
    assert main(["summary", "--paper"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("verydeep: standard output cannot be written: No space left on device;")
    assert shown.count("\n") == 1
    stream.close()  # what was lost is not written again


@pytest.mark.parametrize("flag", ["--help", "--version", ""])
def test_help_that_cannot_be_written_is_no_success(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream)
        try:
            status = main([flag] if flag else [])
        except SystemExit as ended:
            status = int(ended.code or 0)
        assert status == 1
        assert "No space left on device" in capsys.readouterr().err


def test_an_error_is_kept_where_output_is_lost_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: object) -> int:
        print("half a result")
        raise VerydeepError("what; expected this, got that; do so")

    with open("/dev/full", "w", encoding="utf-8") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(summary, "run", fail)
        assert main(["summary", "--paper"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "verydeep summary: what; expected this, got that; do so" and len(lines) == 2


def test_where_standard_error_is_closed_an_error_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["train", "--solver", "none.prototxt"]) == 2
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as caught:
        main(["train", "--nonsense"])
    assert caught.value.code == 2
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("verydeep train: none.prototxt: cannot be read")
    assert out[-1].startswith("verydeep train: error: unrecognized arguments: --nonsense")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1252"])
def test_any_text_can_be_printed(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with path.open("w", encoding=encoding, errors="strict") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(summary, "run", _prints("caf\u00e9 \u4e2d /n\udcff\udce9 \ud800"))
        assert main(["summary", "--paper"]) == 0
    known = {"ascii": b"caf\\xe9", "utf-8": b"caf\xc3\xa9"}.get(encoding, b"caf\xe9")
    other = b"\xe4\xb8\xad" if encoding == "utf-8" else b"\\u4e2d"
    # The bytes of a file name are what a script needs to find the file.
    assert path.read_bytes() == known + b" " + other + b" /n\xff\xe9 \\ud800\n"


def test_errors_can_be_printed_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "err"
    with path.open("w", encoding="ascii", errors="strict") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["summary", f"{tmp_path}/n\udcff\u4e2d.prototxt"]) == 2
    assert b"/n\\udcff\\u4e2d.prototxt: cannot be read: No such file" in path.read_bytes()


def test_messages_do_not_echo_long_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "x" * 300_000
    for words in (["summary", name], ["summary", "--net", name], ["summary", f"--{name}"], [name]):
        try:
            assert main(words) == 2
        except SystemExit as ended:
            assert ended.code == 2
        assert 0 < len(capsys.readouterr().err) < 5000


def test_a_working_folder_that_was_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["summary", "net.prototxt"]) == 2
    assert capsys.readouterr().err.startswith(
        "verydeep summary: the working folder cannot be used: No such file or directory; expected"
    )


def test_other_errors_of_the_system_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = (
        (FileNotFoundError(2, "No such file or directory", "some/file"), "some/file: No such file"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (UnicodeEncodeError("ascii", "n\u4e2d", 1, 2, "ordinal"), "'n\u4e2d': has no form in the"),
        (MemoryError("9 GiB"), "not enough memory: 9 GiB; expected more"),
    )
    for error, words in errors:

        def fail(args: object, error: BaseException = error) -> int:
            raise error

        monkeypatch.setattr(summary, "run", fail)
        assert main(["summary", "--paper"]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"verydeep summary: {words}") and shown.count("\n") == 1


def test_messages_while_a_file_goes_to_standard_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("/dev/stdout", tmp_path / "file"):
        with beside(path):
            print(path)
    assert capsys.readouterr() == (f"{tmp_path}/file\n", "/dev/stdout\n")


_CLOSED = """
import os, sys
from runtime.cli.console import Console
console = Console()
handles = [os.open(sys.argv[1], os.O_RDONLY) for _ in range(2)]
console.report("message")
print("result")
os._exit(0 if min(handles) > 2 and all(map(os.get_inheritable, range(3))) else 1)
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)])
def test_no_file_takes_the_number_of_a_closed_stream(closed: tuple[int, ...]) -> None:
    script = "; ".join(f"exec {n}>&-" for n in closed)
    command = f'{script}; exec "$0" -c "$1" "$2"'
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, _CLOSED, __file__],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors, out = "" if 2 in closed else "message\n", "" if 1 in closed else "result\n"
    moved = "message\n" if 2 in closed and 1 not in closed else ""
    assert (done.stdout, done.stderr) == (moved + out, errors)


def test_a_console_leaves_streams_without_encodings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = Console()
    print("\udcff")
    console.flush()
    assert console.lost is None
