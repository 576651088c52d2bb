"""The command line: every verb explains itself, and Caffe's way of writing flags is taken."""

from __future__ import annotations

import argparse
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
from runtime.cli.main import caffe_flags, main, verbs

ROOT = Path(__file__).resolve().parents[2]
VERBS = verbs()
HELPERS = {"console", "devices", "main", "ranks"}
"""Modules of runtime/cli that are no verbs."""


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
    assert module.__name__ == f"runtime.cli.{module.NAME}"
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


def test_an_unknown_verb_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["trian", "--solver", "x"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "invalid choice: 'trian'" in shown.err
    choices = shown.err.rpartition("choose from ")[2].replace("'", "")
    assert set(choices.strip(" )\n").split(", ")) == set(VERBS)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("-solver=s.prototxt", "--solver=s.prototxt"),
        ("-solver", "--solver"),
        ("-sigint_effect=stop", "--sigint_effect=stop"),
        ("-resize_height=256", "--resize_height=256"),
        ("-gpu=-1", "--gpu=-1"),
        ("-lr-policy", "--lr-policy"),
        ("-help", "--help"),
        ("--solver=-solver", "--solver=-solver"),
        ("--solver", "--solver"),
    ],
)
def test_flags_as_caffe_writes_them(given: str, taken: str) -> None:
    assert caffe_flags(["train", given]) == ["train", taken]


@pytest.mark.parametrize("name", VERBS)
def test_every_flag_of_every_verb_is_taken_that_way(name: str) -> None:
    parser = argparse.ArgumentParser()
    VERBS[name].add_arguments(parser)
    flags = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    assert caffe_flags([flag[1:] for flag in flags]) == flags


@pytest.mark.parametrize(
    "word",
    [
        "-",
        "--",
        "-h",
        "-0.5",
        "-1",
        "-1e-3",
        "-1,2",
        "-.5",
        "net-D",
        "nets/-D",
        "a=-b",
        "./-x",
        "-/tmp",
    ],
)
def test_what_is_no_flag_stays(word: str) -> None:
    assert caffe_flags(["verb", word]) == ["verb", word]


def test_flags_reach_the_verb_in_either_form(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(summary, "run", lambda args: seen.append((args.net, args.batch)) or 0)
    for command in ("-net=A -batch=3", "-net A -batch 3", "--net A --batch=3"):
        assert main(["summary", *command.split()]) == 0
    assert seen == [("A", 3)] * 3
    assert capsys.readouterr().out == ""


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


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
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
