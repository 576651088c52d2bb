"""Summarise a database: counts, sizes, encodings and labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_prep import datum as datums
from data_prep.db_record import DatabaseRecord
from data_prep.image_file import read_header
from data_prep.progress import Progress
from data_prep.read_plan import RecordSource
from prototxt_gen.errors import DataError

_FIRST_KEYS = 3


@dataclass
class DatabaseInfo:
    """A summary; `sizes` counts (channels, height, width), `problems` names unusable records.

    `record` is how this program made the database, None for databases without a record.
    """

    records: int = 0
    value_bytes: int = 0
    first_keys: list[str] = field(default_factory=list)
    encodings: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    record: DatabaseRecord | None = None

    def as_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        heights = [size[1] for size in self.sizes]
        widths = [size[2] for size in self.sizes]
        return {
            "records": self.records,
            "value_bytes": self.value_bytes,
            "first_keys": self.first_keys,
            "encodings": dict(self.encodings),
            "channels": sorted({size[0] for size in self.sizes}),
            "height": [min(heights, default=0), max(heights, default=0)],
            "width": [min(widths, default=0), max(widths, default=0)],
            "sizes": len(self.sizes),
            "labels": {str(label): count for label, count in sorted(self.labels.items())},
            "problems": self.problems,
            "complete": None if self.record is None else self.record.complete,
            "options": None if self.record is None else dict(self.record.options),
        }


def inspect(
    source: RecordSource,
    decode: bool = False,
    progress: Progress | None = None,
    record: DatabaseRecord | None = None,
) -> DatabaseInfo:
    """Read every record; with `decode` every image is decoded, otherwise only its header."""
    info = DatabaseInfo(records=len(source), record=record)
    for index in range(len(source)):
        key = source.key(index)
        if index < _FIRST_KEYS:
            info.first_keys.append(key)
        try:
            _add(info, source.get(index), f"record {key}", decode)
        except DataError as error:
            info.problems.append(str(error))
        if progress is not None:
            progress(index + 1, len(source))
    return info


def _add(info: DatabaseInfo, value: bytes, name: str, decode: bool) -> None:
    info.value_bytes += len(value)
    message = datums.parse(value, name)
    header = read_header(message.data, name) if message.encoded else None
    if header is not None and header.channels is not None and not decode:
        size = (header.channels, header.height, header.width)
    else:
        height, width, channels = datums.image_of(message, name).shape
        size = (channels, height, width)
    info.sizes[size] += 1
    if header is not None:
        info.encodings[header.format] += 1
    else:
        info.encodings["raw" if len(message.data) else "float"] += 1
    info.labels[int(message.label)] += 1
