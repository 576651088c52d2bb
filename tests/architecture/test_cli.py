"""The command line: every verb has a description, an example and errors of one line."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import runtime.cli
from prototxt_gen.errors import VerydeepError
from runtime.cli import summary
from runtime.cli.arguments import leaves
from runtime.cli.main import main, verb_parsers, verbs

ROOT = Path(__file__).resolve().parents[2]
VERBS = verbs()
HELPERS = {
    *("arguments", "caffe_programs", "completion", "console", "data_sets", "devices", "entry"),
    *("environment", "export_onnx", "main", "preparation_flags", "ranks", "shared_flags"),
    *("bundles", "features_apply", "usage", "watch_flags"),
}
"""Modules of runtime/cli that are not verbs."""


def help_of(*words: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0


def test_every_module_is_a_verb_or_a_known_helper() -> None:
    names = {module.name for module in pkgutil.iter_modules(runtime.cli.__path__)}
    modules = {importlib.import_module(f"runtime.cli.{name}") for name in names - HELPERS}
    assert modules == set(VERBS.values())


@pytest.mark.parametrize("module", VERBS.values(), ids=VERBS)
def test_a_verb_is_named_and_described(module: ModuleType) -> None:
    assert module.__name__ == f"runtime.cli.{module.NAME.replace('-', '_')}"
    assert module.SUMMARY.strip() == module.SUMMARY != ""
    assert "\n" not in module.SUMMARY
    assert not module.SUMMARY.endswith(".")
    assert module.EXAMPLE.startswith(f"verydeep {module.NAME} ")
    assert callable(module.add_arguments)
    assert callable(module.run)


@pytest.mark.parametrize("name", VERBS)
def test_help_shows_the_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    help_of(name)
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: verydeep {name} ")
    assert VERBS[name].SUMMARY in " ".join(shown.split())
    assert f"  {VERBS[name].EXAMPLE}\n" in shown


@pytest.mark.parametrize("name", VERBS)
def test_examples_are_flags_that_exist(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example parses; it is not run."""
    parsed = []
    monkeypatch.setattr(VERBS[name], "run", lambda args: parsed.append(args.verb) or 0)
    command = VERBS[name].EXAMPLE.replace("...", "").split()
    assert main(command[1:]) == 0, capsys.readouterr().err
    assert parsed == [name]


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    help_of()
    shown = capsys.readouterr().out.splitlines()
    listed = {line.split()[0] for line in shown if line.startswith("    ") and line[4] != " "}
    assert listed >= set(VERBS)
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.parametrize("name", VERBS)
def test_every_flag_of_every_verb_is_described(name: str) -> None:
    for leaf in leaves(verb_parsers()[name]):
        assert all(action.help for action in leaf._actions), leaf.prog


def test_an_error_of_the_users_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: object) -> int:
        raise VerydeepError("net.prototxt:3:1: what; expected this, got that; do so")

    monkeypatch.setattr(summary, "run", fail)
    assert main(["summary", "--paper"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "verydeep summary: net.prototxt:3:1: what; expected this, got that; do so\n"
    )


def test_ctrl_c_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(summary, "run", interrupt)
    assert main(["summary", "--paper"]) == 130
    assert capsys.readouterr().err == "verydeep summary: interrupted\n"


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("verydeep ")


def test_a_reader_that_stops_early_is_no_error() -> None:
    """As in `verydeep summary --paper | head -1`."""
    script = "import sys; from runtime.cli.main import main; sys.exit(main(['summary', '--paper']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert done.stderr == b""
