"""The argument parser of the command line: argparse that accepts the forms of gflags as well.

Accepted are -flag and --flag, `-` and `_` alike, --flag=value and --flag value, --switch=false and
--noswitch, unique beginnings of flags, and flags before the verb.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from prototxt_gen.errors import UsageError
from runtime.cli.usage import HelpFormatter, short_usage

_FLAG = re.compile(r"(--?)([A-Za-z][\w-]*)(=.*)?", re.DOTALL)
_TRUE = ("true", "t", "yes", "y", "1")
_FALSE = ("false", "f", "no", "n", "0")
_MOST_SUGGESTIONS = 3
_PATHS = (
    "FILE",
    "FILES",
    "DIR",
    "PROTOTXT",
    "LOG",
    "DB",
    "IN",
    "OUT",
    "NET",
    "WEIGHTS",
    "LISTFILE",
)

_Flag = tuple[str, argparse.Action]
"""A flag as it is declared, and its action."""


class Parser(argparse.ArgumentParser):
    """The parser of the command line, of a verb, or of an action of a verb."""

    def __init__(self, **options: Any) -> None:
        options["allow_abbrev"] = False
        options["formatter_class"] = HelpFormatter
        super().__init__(**options)
        self.rewrites = True
        """Whether arguments are brought into argparse's form."""
        self.without_effect: dict[str, bool] = {}
        """Flags of original Caffe that the verb accepts and ignores, in their canonical form, and
        whether they are switches."""
        self.notes: list[str] = []
        """Remarks on the arguments that were parsed last."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments after bringing them into argparse's form.

        Raises:
            UsageError: arguments that the parser does not have.
        """
        words = args
        if args is not None and self.rewrites:
            words = _in_argparse_form(self, list(args))
        parsed, rest = super().parse_known_args(words, namespace)
        if rest and not children(self):
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        self._refuse_empty(parsed)
        return parsed, rest

    def _refuse_empty(self, parsed: argparse.Namespace) -> None:
        """Refuse an empty path that is required; an empty optional flag is one not given."""
        for action in self._actions:
            needed = action.required or not action.option_strings
            if needed and action.metavar in _PATHS and getattr(parsed, action.dest, None) == "":
                name = action.option_strings[0] if action.option_strings else action.metavar
                self.error(f"argument {name}: expected a path, got an empty one")

    def error(self, message: str) -> NoReturn:
        name = self.prog.partition(" ")[2]
        advice = f"help: verydeep help {name}".rstrip()
        raise UsageError(f"{self.format_usage()}{advice}\n{self.prog}: error: {message}")

    def format_usage(self) -> str:
        """The usage in one line."""
        return f"usage: {short_usage(self)}\n"

    def format_help(self) -> str:
        """The help page."""
        self.usage = short_usage(self).replace("%", "%%")
        try:
            return super().format_help()
        finally:
            self.usage = None

    def _print_message(self, message: str, file: Any = None) -> None:
        # The inherited method ignores errors of the stream.
        print(message, end="", file=file)


def children(parser: argparse.ArgumentParser) -> dict[str, Parser]:
    """The parsers of the verbs or actions of a parser, by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def leaves(parser: Parser) -> Iterator[Parser]:
    """The parsers without actions below a parser, or the parser itself."""
    below = children(parser)
    if not below:
        yield parser
    for child in below.values():
        yield from leaves(child)


def canonical(name: str) -> str:
    """The form in which two spellings of a flag or verb are equal."""
    return name.lstrip("-").replace("-", "_")


def suggestion(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` with the names that resemble a mistyped one, or nothing."""
    by_form = {canonical(word).lower(): word for word in known}
    close = difflib.get_close_matches(canonical(name).lower(), by_form, _MOST_SUGGESTIONS)
    return f"; did you mean {' or '.join(by_form[word] for word in close)}?" if close else ""


def _in_argparse_form(parser: Parser, words: list[str]) -> list[str]:
    parser.notes = []
    below = children(parser)
    return _verb_first(parser, below, words) if below else _Rewriter(parser).rewrite(words)


def _verb_first(parser: Parser, below: dict[str, Parser], words: list[str]) -> list[str]:
    """Put the verb before the flags that precede it."""
    names = {canonical(name): name for name in below}
    end = words.index("--") if "--" in words else len(words)
    plain = [i for i, word in enumerate(words[:end]) if not _FLAG.fullmatch(word)]
    words = [_own_flag(parser, word) for word in words[:end]] + words[end:]
    verb_indices = [i for i in plain if canonical(words[i]) in names]
    own = parser._option_string_actions
    for fits in (_only_flags, _perhaps_only_flags):
        for index in verb_indices:
            name = names[canonical(words[index])]
            flags = [word for word in words[:index] if word not in own]
            if fits(below[name], flags):
                kept = [word for word in words[:index] if word in own]
                return [*kept, name, *flags, *words[index + 1 :]]
    _refuse_without_verb(parser, below, words, plain)
    return words


def _refuse_without_verb(
    parser: Parser, below: dict[str, Parser], words: list[str], plain: list[int]
) -> None:
    """Report words without a verb; `plain` has the indices of those that are no flags."""
    if plain:
        wrong = next((i for i in plain if not _may_be_value(words, i)), plain[-1])
        parser.error(_unknown(parser, words[wrong], [*below, *_long_flags(parser)], list(below)))
    own = parser._option_string_actions
    flag = next((word for word in words if word not in own), None)
    if flag is not None:
        hint = suggestion(flag.partition("=")[0], _long_flags(parser))
        parser.error(f"{flag} without a {_kind(parser)}{hint or _list(below)}")


def _unknown(
    parser: argparse.ArgumentParser, word: str, known: Sequence[str], names: Sequence[str]
) -> str:
    hint = suggestion(word, known)
    return f"unknown {_kind(parser)} '{word}'{hint or _list(names)}"


def _list(names: Iterable[str]) -> str:
    return f"; expected one of {', '.join(names)}"


def _kind(parser: argparse.ArgumentParser) -> str:
    """What the parsers below are: verbs or actions."""
    return next(
        str(action.metavar).lower()
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
    )


def _long_flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for flag, _ in _by_name(parser).values()]


def _own_flag(parser: Parser, word: str) -> str:
    """A flag of the parser itself as it is declared; other words as they are."""
    match = _FLAG.fullmatch(word)
    entry = _by_name(parser).get(canonical(match[2])) if match and match[3] is None else None
    return word if entry is None or word in parser._option_string_actions else entry[0]


def _may_be_value(words: list[str], index: int) -> bool:
    match = _FLAG.fullmatch(words[index - 1]) if index > 0 else None
    return match is not None and match[3] is None


def _perhaps_only_flags(parser: Parser, words: list[str]) -> bool:
    """Whether words are flags with their values, if all flags among them exist."""
    return all(_FLAG.fullmatch(word) or _may_be_value(words, i) for i, word in enumerate(words))


def _only_flags(parser: Parser, words: list[str]) -> bool:
    """Whether words are flags of a parser with their values."""
    flags = {form: flag for leaf in leaves(parser) for form, flag in _by_name(leaf).items()}
    index = 0
    while index < len(words):
        match = _FLAG.fullmatch(words[index])
        entry = None if match is None else _find(flags, canonical(match[2]))
        if match is None or entry is None:
            return False
        alone = match[3] is not None or entry[1].nargs == 0
        index += 1 if alone else 2
    return index == len(words)


def _by_name(parser: argparse.ArgumentParser) -> dict[str, _Flag]:
    """The long flags of a parser, by canonical name."""
    options = parser._option_string_actions.items()
    return {
        canonical(flag): (flag, action)
        for flag, action in options
        if flag.startswith("--") and "=" not in flag
    }


def _find(flags: dict[str, _Flag], form: str) -> _Flag | None:
    """The flag of a canonical name, or the switch that the name turns off."""
    entry = flags.get(form)
    if entry is None and form.startswith("no"):
        entry = flags.get(form[2:].lstrip("_"))
        entry = entry if entry and _is_boolean(entry[1]) else None
    return entry


class _Rewriter:
    """Brings the flags of one parser into argparse's form."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.exact = parser._option_string_actions
        self.flags = _by_name(parser)
        self.output: list[tuple[argparse.Action | None, list[str]]] = []

    def rewrite(self, words: list[str]) -> list[str]:
        position = 0
        while position < len(words):
            word = words[position]
            match = _FLAG.fullmatch(word)
            if word == "--":
                self.output.append((None, words[position:]))
                break
            following = words[position + 1 : position + 2]
            position += 1
            if match is None or (word in self.exact and self.exact[word].nargs == 0):
                self.output.append((self.exact.get(word), [word]))
            elif self._flag(word, match[2], match[3], following):
                position += 1
        return [word for _, group in self.output for word in group]

    def _flag(self, word: str, name: str, value: str | None, following: list[str]) -> bool:
        """Add a flag; return whether the word behind it is its value."""
        form = canonical(name)
        entry = _find(self.flags, form)
        if entry is None and form not in self.parser.without_effect:
            entry = self._beginning(form)
        if entry is None:
            return self._ignored(word, form, value, following)
        option, action = entry
        if _is_boolean(action):
            negated = form.startswith("no") and not canonical(option).startswith("no")
            self._switch(option, action, _truth(self.parser, option, value) != negated)
            return False
        if value is not None:
            self.output.append((action, [option + value]))
            return False
        if action.nargs is not None or not following or _FLAG.fullmatch(following[0]):
            self.output.append((action, [option]))
            return False
        joined = following[0].startswith("-") and len(following[0]) > 1
        group = [f"{option}={following[0]}"] if joined else [option, following[0]]
        self.output.append((action, group))
        return True

    def _switch(self, option: str, action: argparse.Action, on: bool) -> None:
        if isinstance(action, argparse.BooleanOptionalAction):
            positive, negative = action.option_strings[0], action.option_strings[-1]
            on = on != option.startswith("--no-")
            self.output.append((action, [positive if on else negative]))
            return
        self.output = [entry for entry in self.output if entry[0] is not action]
        if on:
            self.output.append((action, [option]))

    def _beginning(self, form: str) -> _Flag | None:
        """The one flag that begins so."""
        matches = [entry for name, entry in self.flags.items() if name.startswith(form)]
        actions = {id(action) for _, action in matches}
        if len(actions) > 1:
            names = ", ".join(flag for flag, _ in matches)
            self.parser.error(f"ambiguous option: --{form} could match {names}")
        return matches[0] if matches else None

    def _ignored(self, word: str, form: str, value: str | None, following: list[str]) -> bool:
        ignored = self.parser.without_effect
        name = form if form in ignored else form.removeprefix("no").lstrip("_")
        if name not in ignored or (name != form and not ignored[name]):
            hint = suggestion(form, _long_flags(self.parser))
            self.parser.error(f"unrecognized arguments: {word}{hint}")
        self.parser.notes.append(f"--{form}: has no effect here")
        takes_value = value is None and not ignored[name]
        return takes_value and bool(following) and not _FLAG.fullmatch(following[0])


def _is_boolean(action: argparse.Action) -> bool:
    boolean = action.nargs == 0 and isinstance(action.const, bool)
    return boolean or isinstance(action, argparse.BooleanOptionalAction)


def _truth(parser: Parser, option: str, value: str | None) -> bool:
    """The value of a switch."""
    if value is None:
        return True
    word = value[1:].lower()
    if word not in _TRUE + _FALSE:
        parser.error(f"argument {option}: expected true or false, got {value[1:]!r}")
    return word in _TRUE
