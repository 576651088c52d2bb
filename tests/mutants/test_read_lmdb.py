"""The check of records that were read from a damaged database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.lmdb_bases import Records, make_base
from tests.mutants.read_lmdb import check_records


def test_wrong_records_are_noticed(tmp_path: Path) -> None:
    base = make_base("deep", tmp_path / "db")
    sound = base.states[-1]
    key, other = sorted(sound)[:2]
    damaged = bytearray(base.content)
    damaged[base.own[key][1][0]] ^= 1
    content = bytes(damaged)
    fewer = {name: value for name, value in sound.items() if name != other}
    wrong: list[Records] = [sound | {other: b"x"}, fewer, sound | {b"a": b"x", b"b": b"x"}]
    for read in wrong:
        with pytest.raises(AssertionError):
            check_records(base, content, read)
    check_records(base, content, sound | {key: b"x"})
    check_records(base, content, base.states[0])
