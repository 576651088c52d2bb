"""Every command and snippet of README and docs: run, or at least checked against its parser."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import proto, text
from prototxt_gen.errors import UsageError
from runtime.cli.arguments import Parser, canonical, leaves
from runtime.cli.main import main, verb_parsers
from tests.docs.pages import (
    ROOT,
    Block,
    blocks,
    command_lines,
    inline_code,
    page_id,
    pages,
    without_fences,
)

LANGUAGES = {"sh", "python", "text", "toml", "proto"}
MAKE_TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

every_page = pytest.mark.parametrize("path", pages(), ids=page_id)


def verb_words(command: str) -> list[str] | None:
    """The words after `verydeep` in a command, or None for another program."""
    words = shlex.split(command)
    return words[words.index("verydeep") + 1 :] if "verydeep" in words else None


def check_command(command: str) -> None:
    """Parse a command by the parser of its verb, and a `make` by the Makefile."""
    words = shlex.split(command)
    if words[0] == "make":
        targets = {word for word in words[1:] if "=" not in word}
        assert targets <= MAKE_TARGETS, f"{command}: not in the Makefile"
    arguments = verb_words(command)
    if arguments is None:
        return
    if arguments and arguments[0].startswith("--"):
        assert arguments[0] in ("--help", "--version"), command
        return
    if arguments[:1] == ["help"]:
        arguments = arguments[1:]
        assert not arguments or arguments[0] in verb_parsers(), command
        return
    try:
        verb_parsers()[arguments[0]].parse_args(arguments[1:])
    except UsageError as error:
        pytest.fail(f"{command}: {error}")


def flags_of(parser: Parser) -> set[str]:
    """The flags of a parser and of its actions, in their canonical form."""
    return {canonical(flag) for leaf in leaves(parser) for flag in leaf._option_string_actions}


def flags_in(code: str) -> set[str]:
    """The flags that a command has, in their canonical form."""
    return {canonical(flag) for flag in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", code)}


@every_page
def test_blocks_have_a_known_language(path: Path) -> None:
    for block in blocks(path.read_text()):
        assert block.language in LANGUAGES, f"{page_id(path)}:{block.line}"
        assert block.mark != "skip" or len(block.value.split()) > 1, "a reason is missing"


@every_page
def test_code_is_fenced(path: Path) -> None:
    assert re.findall(r"\n\n {4}(?! *[-*\d])\S.*", without_fences(path.read_text())) == []


@every_page
def test_commands_are_accepted_by_their_parsers(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.language == "sh":
            for command in command_lines(block.text):
                check_command(command)


@every_page
def test_inline_commands_use_existing_verbs_and_flags(path: Path) -> None:
    parsers = verb_parsers()
    for code in inline_code(path.read_text()):
        match = re.match(r"(?:.*\s)?verydeep ([a-z][\w-]*)\b(.*)", code)
        if match is None:
            continue
        verb, rest = match.groups()
        assert verb in (*parsers, "help"), code
        assert verb == "help" or flags_in(rest) <= flags_of(parsers[verb]), code


@every_page
def test_inline_flags_belong_to_a_verb(path: Path) -> None:
    flags = {"size", "part", "save", "start"}  # of benchmarks/gpu_check.sh and tests.mutants
    flags.update(*(flags_of(parser) for parser in verb_parsers().values()))
    for code in inline_code(path.read_text()):
        if re.match(r"--?[a-z]", code):
            assert flags_in(code) <= flags, code


def test_a_wrong_flag_is_noticed() -> None:
    with pytest.raises(pytest.fail.Exception, match="unrecognized arguments"):
        check_command("verydeep upgrade --unknown a b")


class Runner:
    """Runs the blocks of a page, in order, in the current folder."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__docs__"}
        self.output: str | None = None

    def run(self, block: Block) -> None:
        if block.mark == "file":
            Path(block.value).write_text(block.text)
        if block.language == "text":
            self._compare(block)
            return
        self.output = None
        if block.mark == "skip" or (block.mark == "needs" and not _is_there(block.value)):
            return
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            getattr(self, f"_run_{block.language}")(block)
        self.output = stdout.getvalue()

    def _compare(self, block: Block) -> None:
        if block.follows_directly and self.output is not None:
            got = "\n".join(line.rstrip() for line in self.output.splitlines()) + "\n"
            flags = doctest.ELLIPSIS
            assert doctest.OutputChecker().check_output(block.text, got, flags), got

    def _run_sh(self, block: Block) -> None:
        for command in command_lines(block.text):
            words = verb_words(command)
            assert words is not None, f"{command}: only verydeep is run here; mark it as skipped"
            assert main(words) == 0, command

    def _run_python(self, block: Block) -> None:
        exec(compile(block.text, f"<line {block.line}>", "exec"), self.names)

    def _run_toml(self, block: Block) -> None:
        if sys.version_info >= (3, 11):
            import tomllib

            tomllib.loads(block.text)

    def _run_proto(self, block: Block) -> None:
        message = proto.SolverParameter if "base_lr" in block.text else proto.NetParameter
        text.parse(block.text, message)


@pytest.fixture
def _modules_as_before() -> Iterator[None]:
    """Forget the name `caffe`, under which a snippet registers runtime.pycaffe."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "caffe"]:
        del sys.modules[name]


def _is_there(name: str) -> bool:
    """Whether a module, or an attribute of a module, exists."""
    module, _, attribute = name.partition(".")
    try:
        found = importlib.import_module(module)
    except ImportError:
        return False
    return not attribute or hasattr(found, attribute)


@every_page
@pytest.mark.usefixtures("workspace", "_modules_as_before")
def test_commands_run(path: Path) -> None:
    runner = Runner()
    for block in blocks(path.read_text()):
        try:
            runner.run(block)
        except Exception as error:
            raise AssertionError(f"{page_id(path)}:{block.line}: {error}") from error
