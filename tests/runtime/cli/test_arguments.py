"""The forms in which arguments are accepted: argparse's, gflags' and Caffe's."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest

from runtime.cli import data, summary, test, time, train
from runtime.cli.arguments import Parser, UsageError, leaves
from runtime.cli.main import main, verb_parsers, verbs

VERBS = verb_parsers()


def parse(verb: str, *words: str) -> dict[str, Any]:
    return vars(VERBS[verb].parse_args(list(words)))


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What the verbs are called with; they are not run."""
    calls: list[argparse.Namespace] = []
    for module in (data, summary, test, time, train):
        monkeypatch.setattr(module, "run", lambda args: calls.append(args) or 0)
    return calls


def usage_error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    return shown.err


@pytest.mark.parametrize(
    "words",
    [
        "--solver=s",
        "-solver=s",
        "--solver s",
        "-solver s",
        "--solv s",
        "-solver=other -solver=s",
    ],
)
def test_one_dash_or_two_and_either_way_of_giving_a_value(words: str) -> None:
    assert parse("train", *words.split())["solver"] == "s"


@pytest.mark.parametrize("verb", VERBS)
def test_dashes_and_underscores_are_the_same_in_every_flag(verb: str) -> None:
    for leaf in leaves(VERBS[verb]):
        for flag, action in leaf._option_string_actions.items():
            if not flag.startswith("--") or (action.nargs == 0 and "help" in flag) or "=" in flag:
                continue
            for dashes in ("-", "--"):
                for word in (flag[2:].replace("-", "_"), flag[2:].replace("_", "-")):
                    assert _reaches(leaf, dashes + word, action), (verb, word)


def _reaches(leaf: Parser, word: str, action: argparse.Action) -> bool:
    """Whether the leaf takes a word for the flag of an action, or of its negative."""
    value = [] if action.nargs == 0 else ["value-of-no-type"]
    try:
        leaf.parse_known_args([word, *value])
    except UsageError as error:
        return "unrecognized" not in str(error) and "ambiguous" not in str(error)
    return True


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("", False),
        ("--json", True),
        ("-json", True),
        ("--json=true", True),
        ("--json=1", True),
        ("--json=YES", True),
        ("--json=false", False),
        ("-json=0", False),
        ("--nojson", False),
        ("-nojson", False),
        ("--no-json", False),
        ("--no_json", False),
        ("--json --json=false", False),
        ("--nojson --json", True),
        ("--nojson=false", True),
    ],
)
def test_switches_in_the_forms_of_gflags(words: str, value: bool) -> None:
    assert parse("train", "--solver=s", *words.split())["json"] is value


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("--logtostderr", True),
        ("--logtostderr=false", False),
        ("--nologtostderr", False),
        ("--no-logtostderr", False),
        ("--no-logtostderr=true", False),
        ("--no-logtostderr=false", True),
    ],
)
def test_switches_that_have_a_negative_form(words: str, value: bool) -> None:
    assert parse("summary", "--net=A", words)["GLOG_logtostderr"] is value


def test_switches_of_convert_imageset() -> None:
    rest = ("r/", "l", "d")
    for words in ("--gray", "-gray=true", "--gray=t", "--gray=1", "--nogray --gray"):
        assert parse("convert_imageset", *words.split(), *rest)["gray"] is True
    for words in ("--nogray", "-gray=false", "--gray=f", "--gray=0", "--gray --nogray"):
        assert parse("convert_imageset", *words.split(), *rest)["gray"] is False
    assert parse("convert_imageset", "--check-size=true", *rest)["check_size"] is True


@pytest.mark.parametrize("value", ["maybe", "", "2", "tru"])
def test_other_values_of_switches_are_errors(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = usage_error(capsys, "train", "--solver=s", f"--json={value}")
    assert shown.endswith(f"argument --json: expected true or false, got {value!r}\n")


@pytest.mark.parametrize(
    "words",
    [
        "--solver=s train",
        "-solver s train",
        "--solver=s --json train",
        "--solver s --gpu 0 train --json=false",
        "train --solver=s",
        "--log-dir d --solver s train",
    ],
)
def test_flags_may_precede_the_verb(words: str, parsed: list[argparse.Namespace]) -> None:
    assert main(words.split()) == 0
    assert [(args.verb, args.solver) for args in parsed] == [("train", "s")]


def test_a_value_that_is_the_name_of_a_verb(parsed: list[argparse.Namespace]) -> None:
    assert main(["-solver", "test", "train"]) == 0
    assert main(["train", "-solver", "test"]) == 0
    assert [(args.verb, args.solver) for args in parsed] == [("train", "test")] * 2


def test_flags_may_precede_the_action_of_a_verb(parsed: list[argparse.Namespace]) -> None:
    for words in ("data info --json db", "data --json info db", "--json data info db"):
        assert main(words.split()) == 0
    assert [(args.action, args.json, args.database) for args in parsed] == [
        ("info", True, "db")
    ] * 3


@pytest.mark.parametrize("verb", ["convert_imageset", "convert-imageset", "device-query"])
def test_verbs_in_either_spelling(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: verydeep {verb.replace('-', '_')} ")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("trian", "train"), ("sumary", "summary"), ("convert-imageste", "convert_imageset")],
)
def test_a_mistyped_verb_gets_a_suggestion_and_the_list(
    wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([wrong], [wrong, "--solver", "train"], ["help", wrong]):
        shown = usage_error(capsys, *words)
        assert shown.startswith("usage: verydeep [-h]")
        assert re.search(rf"invalid choice: '{wrong}'; did you mean .*\b{right}\b", shown)
        choices = shown.rpartition("(choose from ")[2]
        assert set(choices.strip(")\n").split(", ")) == set(verbs())


@pytest.mark.parametrize(
    ("words", "prog", "hint"),
    [
        ("train --sovler s", "train", "--sovler; did you mean --solver?"),
        ("train --max_iter 3", "train", "--max_iter"),
        ("train -solver s --snapshto=x", "train", "--snapshto=x; did you mean --snapshot?"),
        ("summary --net A --bacth 3", "summary", "--bacth; did you mean --batch?"),
        ("data info --decoed db", "data info", "--decoed; did you mean --decode?"),
        ("features extract --wieghts w", "features extract", "did you mean --weights?"),
        ("test --snapshto x", "test", "--snapshto"),
        ("summary --noiterations net", "summary", "--noiterations"),
        ("train --solver s --noiterations", "train", "--noiterations"),
        ("--sovler s train", "train", "--sovler; did you mean --solver?"),
        ("train --solver s extra", "train", "unrecognized arguments: extra"),
        ("data info db extra", "data info", "unrecognized arguments: extra"),
    ],
)
def test_a_mistyped_flag_gets_a_suggestion_and_the_verbs_own_usage(
    words: str, prog: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = usage_error(capsys, *words.split())
    assert shown.startswith(f"usage: verydeep {prog} [-h]")
    assert f"\nverydeep {prog}: error: " in shown and hint in shown


def test_several_beginnings_are_ambiguous(capsys: pytest.CaptureFixture[str]) -> None:
    shown = usage_error(capsys, "train", "--s", "x")
    assert re.search(r"ambiguous option: --s could match .*--solver.*--snapshot", shown)


def test_flags_without_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--solver=s without a verb; expected one of" in usage_error(capsys, "--solver=s")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("test --model=m --weights=w --phase=TEST", "phase"),
        ("train --solver=s --iterations 5", "iterations"),
        ("--solver s time --model=m", "solver"),
        ("summary --v=1 net.prototxt", "v"),
        ("summary -v 1 net.prototxt", "v"),
        ("summary --colorlogtostderr net.prototxt", "colorlogtostderr"),
        ("summary --nocolorlogtostderr net.prototxt", "nocolorlogtostderr"),
        ("--logbufsecs=0 train --solver=s", "logbufsecs"),
        ("time --model=m --v 2", "v"),
    ],
)
def test_flags_of_caffe_without_effect_on_a_verb_are_reported(
    words: str,
    flag: str,
    parsed: list[argparse.Namespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words.split()) == 0 and len(parsed) == 1
    assert f"--{flag}: has no effect here" in capsys.readouterr().err


def test_the_phase_as_caffe_writes_it() -> None:
    assert parse("time", "--model=m", "--phase=TEST")["phase"] == "TEST"
    assert parse("time", "-model", "m", "-phase", "TEST")["phase"] == "TEST"


@pytest.mark.parametrize(
    ("word", "value"), [("-1,2", "-1,2"), ("-0.5", "-0.5"), ("-", "-"), ("./-x", "./-x")]
)
def test_values_that_begin_with_a_dash(word: str, value: str) -> None:
    assert parse("train", "--solver", word)["solver"] == value
    assert parse("train", f"--solver={word}")["solver"] == value


@pytest.mark.parametrize("word", ["net-D", "nets/-D", "a=-b", "./-x", "-", "-/tmp"])
def test_other_words_are_positional(word: str) -> None:
    if word == "-/tmp":
        with pytest.raises(UsageError):
            parse("summary", word)
        assert parse("summary", "--", word)["model"] == word
    else:
        assert parse("summary", word)["model"] == word


def test_a_missing_value_is_not_the_next_flag() -> None:
    with pytest.raises(UsageError, match="argument --solver: expected one argument"):
        parse("train", "--solver", "--gpu", "0")


def test_help_as_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for words, begin in (
        (["help"], "usage: verydeep [-h]"),
        (["-help"], "usage: verydeep [-h]"),
        (["--help"], "usage: verydeep [-h]"),
        (["train", "-help"], "usage: verydeep train "),
        (["data", "-help"], "usage: verydeep data [-h] ACTION"),
        (["-version"], "verydeep "),
        (["help", "train"], "usage: verydeep train "),
        (["help", "data", "info"], "usage: verydeep data info "),
        (["help", "extract-features"], "usage: verydeep extract_features "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(begin)
