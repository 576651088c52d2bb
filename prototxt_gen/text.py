"""Prototxt files: reading with the location of errors, upgrading, and atomic writing."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from google.protobuf import text_format

from prototxt_gen import proto
from prototxt_gen.destination import current_folder, is_file
from prototxt_gen.errors import ProtoError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.locate import located
from prototxt_gen.number_limits import check_net, check_solver
from prototxt_gen.printer import to_text
from prototxt_gen.proto import Message
from prototxt_gen.text_errors import missing_fields, translate
from prototxt_gen.upgrade import (
    ignored_transformations,
    set_snapshot_prefix,
    upgrade_net,
    upgrade_solver,
)

__all__ = ["parse", "read", "read_net", "read_solver", "to_text", "write"]

_LOG = logging.getLogger("verydeep")
_HEAD = 4096
_MOST_BACKSLASHES = 1000
# Text has no control characters except tab, newline, form feed and carriage return.
_NOT_TEXT = bytes(set(range(32)) - {9, 10, 12, 13})
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING_OR_COMMENT = re.compile(r"""("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|#[^\n]*""")
_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip file"),
)


def parse(text: str | bytes, message_or_class: Message, where: str = "prototxt") -> Message:
    """Parse prototxt into a message, or into a new message of a class, and return it.

    Raises:
        ProtoError: the text does not parse; the message begins with `where:line:column`.
    """
    message = message_or_class() if isinstance(message_or_class, type) else message_or_class
    text = _decode(text.encode(errors="surrogatepass") if isinstance(text, str) else text, where)
    _refuse_backslashes(text, where)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as cause:
        raise translate(cause, text, message.DESCRIPTOR, where) from None
    if not message.IsInitialized():
        raise missing_fields(message.FindInitializationErrors(), where)
    return message


def read(path: str | os.PathLike[str], cls: Message) -> Message:
    """Read the message of class `cls` in a prototxt file, without upgrading it.

    Raises:
        ProtoError: the file is missing, unreadable, binary, or does not parse.
    """
    try:
        with Path(path).open("rb") as stream:
            # A file of weights given by mistake may have half a gigabyte: test its first bytes.
            head = stream.read(_HEAD)
            _refuse_binary(head, str(path))
            content = head + stream.read()
    except (OSError, ValueError) as cause:
        reason = cause.strerror if isinstance(cause, OSError) else None
        raise ProtoError(
            f"{path}: cannot be read: {reason or cause}; expected a prototxt file; "
            f"check the path (the current folder is {current_folder()})"
        ) from cause
    return parse(content, cls, str(path))


def read_net(path: str | os.PathLike[str]) -> Message:
    """Read the NetParameter in a file of any of Caffe's three forms, and upgrade it.

    Raises:
        ProtoError: see `read`; or a number is not finite or out of its field's range.
    """
    net = _read_as(path, proto.NetParameter, proto.SolverParameter)
    _log(path, upgrade_net(net, str(path)))
    with located(path):
        check_net(net)
    for sentence in ignored_transformations(net):
        _LOG.warning("%s: %s", path, sentence)
    return net


def read_solver(path: str | os.PathLike[str]) -> Message:
    """Read the SolverParameter in a file, upgrade it, and set its snapshot_prefix as in Caffe.

    Raises:
        ProtoError: see `read`; or a number is not finite or out of its field's range.
    """
    solver = _read_as(path, proto.SolverParameter, proto.NetParameter)
    _log(path, upgrade_solver(solver, str(path)) + set_snapshot_prefix(solver, path))
    with located(path):
        check_solver(solver)
    return solver


def _read_as(path: str | os.PathLike[str], cls: Message, other: Message) -> Message:
    """The message of class `cls` in a file; names a file of the other class that was given."""
    try:
        return read(path, cls)
    except ProtoError as error:
        if not is_file(path):
            raise
        try:
            message = read(path, other)
        except ProtoError:
            raise error from None
        if cls is proto.NetParameter:
            net = message.net or message.train_net
            advice = f"give its net, {net}" if net else "give its net"
            if message.HasField("net_param") or message.HasField("train_net_param"):
                advice = "write its net_param to a file of its own"
            kinds = "a solver prototxt", "a net prototxt"
        else:
            kinds, advice = ("a net prototxt", "a solver prototxt"), "give the solver that names it"
        raise ProtoError(f"{path}: {kinds[0]}; expected {kinds[1]}; {advice}") from error


def write(path: str | os.PathLike[str], message: Message) -> None:
    """Write the message's canonical text to the file at `path`.

    Raises:
        ProtoError: the file cannot be written.
    """
    atomic_write_text(path, to_text(message), ProtoError)


def _log(path: str | os.PathLike[str], sentences: list[str]) -> None:
    for sentence in sentences:
        _LOG.info("%s: %s", path, sentence)


def _decode(content: bytes, where: str) -> str:
    """Decode a file; bytes that are not UTF-8 are allowed in comments, as in Caffe.

    They are decoded to lone surrogates, which protobuf does not handle outside of comments.
    """
    _refuse_binary(content[:_HEAD], where)
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    if not _SURROGATE.search(text):
        return text
    text = _STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)
    if match := _SURROGATE.search(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        raise ProtoError(
            f"{where}:{line}:{column}: text that is not UTF-8; expected UTF-8 outside of comments, "
            f"got the byte 0x{ord(match[0]) & 0xFF:02x}; save the file as UTF-8"
        )
    return text


def _refuse_backslashes(text: str, where: str) -> None:
    """Check the runs of backslashes, in whose length the time of unescaping is quadratic."""
    start = text.find("\\" * (_MOST_BACKSLASHES + 1))
    if start >= 0:
        line = text.count("\n", 0, start) + 1
        column = start - text.rfind("\n", 0, start)
        raise ProtoError(
            f"{where}:{line}:{column}: too many backslashes; expected at most {_MOST_BACKSLASHES} "
            "in a row, got more; remove them"
        )


def _refuse_binary(head: bytes, where: str) -> None:
    kind = next((name for start, name in _SIGNATURES if head.startswith(start)), None)
    if kind is None and head.translate(None, _NOT_TEXT) != head:
        kind = "binary data, such as a .caffemodel or .binaryproto"
    if kind is not None:
        raise ProtoError(
            f"{where}:1:1: this is no prototxt; expected text in UTF-8, got {kind}; "
            "give the .prototxt here, and weights by the option for weights"
        )
