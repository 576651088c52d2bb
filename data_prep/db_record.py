"""The record of a database: how it is made, and whether it is complete.

It is a JSON file in the folder of the database, where LMDB and original Caffe ignore it. Databases
of other programs have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prototxt_gen.errors import DataError
from prototxt_gen.files import atomic_write_text
from prototxt_gen.reading import read_json

FILE = "verydeep.json"
_WRITER = "verydeep"


@dataclass(frozen=True)
class DatabaseRecord:
    """How a database is made; `resuming` is what completes it after an interruption, or empty."""

    complete: bool = False
    resuming: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def read_record(folder: Path) -> DatabaseRecord | None:
    """The record of a database; None if there is none, or if the file has another content."""
    try:
        content = read_json(folder / FILE, regular=True)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("writer") != _WRITER:
        return None
    options = content.get("options")
    return DatabaseRecord(
        content.get("complete") is True,
        str(content.get("resuming", "")),
        options if isinstance(options, dict) else {},
    )


def write_record(folder: Path, record: DatabaseRecord) -> None:
    """Replace the record of a database.

    Raises:
        DataError: the folder cannot be written, or the disk is full.
    """
    content = {
        "writer": _WRITER,
        "complete": record.complete,
        "resuming": record.resuming,
        "options": dict(record.options),
    }
    atomic_write_text(folder / FILE, json.dumps(content, indent=2) + "\n", DataError)


def remove_record(folder: Path) -> None:
    """Remove the record of a database; a database without record is complete."""
    (folder / FILE).unlink(missing_ok=True)


def check_complete(folder: Path) -> None:
    """Refuse a database whose writing was interrupted, or is in progress.

    Raises:
        DataError: names the database and the way to complete it.
    """
    record = read_record(folder)
    if record is not None and not record.complete:
        raise DataError(
            f"{folder}: incomplete: the program that writes it was interrupted or still runs; "
            f"expected all records; {completion(record)}, or delete {folder / FILE} to use the "
            "records that it has"
        )


def completion(record: DatabaseRecord) -> str:
    """The advice for an interrupted database."""
    if not record.resuming:
        return "delete the folder and write it again"
    flag = record.resuming.startswith("-")
    return f"continue with {'convert_imageset ' if flag else ''}{record.resuming}"
