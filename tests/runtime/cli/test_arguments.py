"""The forms in which arguments are accepted: argparse's, gflags' and Caffe's."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest

from prototxt_gen.errors import UsageError
from runtime.cli import data, summary, test, time, train
from runtime.cli.arguments import Parser, leaves
from runtime.cli.main import _parser as parser_of
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
def test_a_mistyped_verb_gets_a_suggestion(
    wrong: str, right: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([wrong], [wrong, "--solver", "train"], ["help", wrong]):
        lines = usage_error(capsys, *words).splitlines()
        assert lines[:2] == ["usage: verydeep [options] VERB ...", "help: verydeep help"]
        assert re.search(rf"unknown verb '{wrong}'; did you mean .*\b{right}\b.*\?$", lines[2])
        assert len(lines) == 3


@pytest.mark.parametrize("words", ["xyzzy", "help xyzzy", "xyzzy --json"])
def test_a_verb_that_resembles_none_gets_the_list(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = usage_error(capsys, *words.split())
    choices = shown.rpartition("unknown verb 'xyzzy'; expected one of ")[2]
    assert set(choices.strip().split(", ")) == set(verbs())


@pytest.mark.parametrize("word", ["version", "--verison", "--vresion=1"])
def test_a_mistyped_flag_of_the_command_itself(
    word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(capsys, word).endswith("; did you mean --version?\n")


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
    assert shown.startswith(f"usage: verydeep {prog} ")
    assert f"\nhelp: verydeep help {prog}\nverydeep {prog}: error: " in shown and hint in shown


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
        (["help", "help"], "usage: verydeep [options] VERB ...\n"),
        (["help", "--json"], "usage: verydeep [options] VERB ...\n"),
        (["help", "--json", "train", "-x"], "usage: verydeep train "),
        (["help"], "usage: verydeep [options] VERB ...\n"),
        (["-help"], "usage: verydeep [options] VERB ...\n"),
        (["--help"], "usage: verydeep [options] VERB ...\n"),
        (["train", "-help"], "usage: verydeep train "),
        (["data", "-help"], "usage: verydeep data [options] ACTION"),
        (["-version"], "verydeep "),
        (["help", "train"], "usage: verydeep train "),
        (["help", "data", "info"], "usage: verydeep data info "),
        (["help", "extract-features"], "usage: verydeep extract_features "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(begin)


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("train", "train --solver FILE [options]"),
        ("test", "test --model FILE --weights FILES [options]"),
        ("summary", "summary (PROTOTXT | --net NET | --spec FILE | --paper) [options]"),
        ("classify", "classify --model FILE [options] IMAGE [IMAGE ...]"),
        ("data", "data [options] ACTION ..."),
        ("caffe-tools", "caffe-tools [options] DIR"),
    ],
)
def test_the_usage_is_one_line_with_what_is_required(words: str, usage: str) -> None:
    parser = VERBS[words]
    assert parser.format_usage() == f"usage: verydeep {usage}\n"
    assert parser.format_help().startswith(parser.format_usage() + "\n")


def test_the_help_of_a_verb_begins_with_its_own_flags_and_ends_with_those_of_glog() -> None:
    text = VERBS["train"].format_help()
    order = (
        "--solver",
        "--snapshot",
        "--keep",
        "\ndevice:",
        "--gpu",
        "\nnet and files:",
        "--stage",
    )
    places = [text.index(part) for part in (*order, "\nlogging:", "--log_dir", "\nexample:")]
    assert places == sorted(places)
    assert text.count("--log_dir") == text.count("--minloglevel") == 1


def test_the_help_of_the_command_describes_the_flags_of_glog(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  --log_dir DIR +write", shown, re.MULTILINE)
    assert re.search(r"^  --stderrthreshold N +the", shown, re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        "train --solver=s --replicas=0",
        "train --solver=s --keep=0",
        "train --solver=s --watchdog=0",
        "train --solver=s --gpu=0,1 --replicas=3",
        "train --solver=s --gpu=x",
        "time --model=m --iterations=0",
        "test --model=m --weights=w --iterations=0",
        "test --model=m --weights=w --gpu 0 --device cpu",
        "test --model=m --weights=w --threads=0",
        "classify i --model=m --weights=w --top=0",
        "summary --paper --batch 3",
        "device_query --gpu=",
    ],
)
def test_invalid_values_of_flags_are_usage_errors(words: str) -> None:
    args = parser_of().parse_args(words.split())
    with pytest.raises(UsageError, match=r"^--"):
        args.run(args)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", "--solver="], "--solver"),
        (["train", "--solver", ""], "--solver"),
        (["test", "--model=m", "--weights="], "--weights"),
        (["summary", ""], "PROTOTXT"),
        (["data", "info", ""], "DB"),
        (["caffe-tools", ""], "DIR"),
    ],
)
def test_an_empty_path_as_from_an_unset_variable(
    words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = usage_error(capsys, *words)
    assert shown.endswith(f"argument {name}: expected a path, got an empty one\n")


def test_an_empty_optional_flag_is_one_not_given() -> None:
    values = parse("train", "--solver=s", "--snapshot=", "--gpu=", "--stage=")
    assert (values["snapshot"], values["gpu"], values["stage"]) == ("", "", "")
