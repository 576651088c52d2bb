"""Ways to start the command line, and completion in the shell."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import runtime
import verydeep
from runtime.cli import entry
from runtime.cli.arguments import Parser, children
from runtime.cli.completion import VARIABLE, answer_completion
from runtime.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("module", ["verydeep", "runtime"])
def test_modules_that_are_the_command(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "help", "data", "info"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: verydeep data info ")


def test_verydeep_has_the_names_of_runtime() -> None:
    for name in verydeep.__all__:
        assert getattr(verydeep, name) == getattr(runtime, name)
    with pytest.raises(AttributeError, match="module 'verydeep' has no attribute 'nothing'"):
        _ = verydeep.nothing


def test_completions_are_given_when_the_shell_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[argparse.ArgumentParser] = []
    fake = types.ModuleType("argcomplete")
    fake.autocomplete = asked.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "argcomplete", fake)
    parser = Parser(prog="p")
    below = parser.add_subparsers(metavar="VERB", parser_class=Parser)
    below.add_parser("train").add_argument("--solver")
    monkeypatch.delenv(VARIABLE, raising=False)
    answer_completion(parser)
    assert asked == []
    monkeypatch.setenv(VARIABLE, "1")
    answer_completion(parser)
    assert asked == [parser]
    # For completions, flags of verbs and `help` may precede the verb.
    assert set(children(parser)) == {"train", "help"}
    assert parser.parse_args(["--solver", "s", "train"]).solver is None
    assert parser.parse_args(["help", "train"]).verb == "train"


def test_without_the_package_nothing_is_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv(VARIABLE, "1")
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "")


def test_completions_of_the_real_package() -> None:
    pytest.importorskip("argcomplete")
    script = (
        "import os, sys; from runtime.cli.main import main; os.dup2(1, 8); "
        "sys.stdout = open(os.devnull, 'w'); main([])"
    )
    for line, words in (
        ("verydeep tr", {"train"}),
        ("verydeep train --de", {"--device"}),
        ("verydeep hel", {"help"}),
        ("verydeep help su", {"summary"}),
        ("verydeep --solv", {"--solver", "--solver-mode"}),
        ("verydeep --solver s tr", {"train"}),
        ("verydeep --solver=s train --sn", {"--snapshot"}),
        ("verydeep --device ", {"cpu", "gpu", "emu"}),
    ):
        variables = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, **variables, VARIABLE: "1", "_ARGCOMPLETE_IFS": " "},
            check=False,
        )
        assert {word.strip() for word in done.stdout.split()} == words


IMPORT_FOREVER = """
import sys, time, types
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "runtime.cli.main":
            print("importing", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                print("lost", flush=True)
                time.sleep(60)
sys.meta_path.insert(0, Finder())
sys.argv = ["verydeep", "train"]
from runtime.cli.entry import main
sys.exit(main())
"""


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_ctrl_c_during_the_imports_ends_a_training(handler: Any) -> None:
    """A script that starts `train &` makes it ignore SIGINT."""
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORT_FOREVER],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "verydeep: interrupted\n")


@pytest.mark.parametrize(
    ("words", "ignored"), [(["train", "--help"], False), (["data", "info", "--help"], True)]
)
def test_only_a_training_handles_an_ignored_sigint(words: list[str], ignored: bool) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit):
            entry.main(words)
    finally:
        after = signal.signal(signal.SIGINT, before)
    assert (after is signal.SIG_IGN) is ignored


def test_the_handler_of_sigint_is_that_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for handler in (signal.default_int_handler, signal.SIG_IGN, lambda number, frame: None):
        before = signal.signal(signal.SIGINT, handler)
        try:
            assert entry.main(["data", "info", "--help"]) == 0
        except SystemExit as ended:
            assert ended.code == 0
        finally:
            after = signal.signal(signal.SIGINT, before)
        assert after == handler
