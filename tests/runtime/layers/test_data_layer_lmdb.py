"""A net with a Data layer whose database this process, or another, also has open with liblmdb."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest

from data_prep import datum
from prototxt_gen import proto, text
from runtime.backend.registry import create_backend
from runtime.core.context import RunContext
from runtime.net import Net

NET = """
layer { name: "data" type: "Data" top: "data" top: "label"
  data_param { source: "db" batch_size: 4 backend: LMDB } }
"""
COUNT = 10


def _records(count: int) -> list[tuple[bytes, bytes]]:
    return [
        (
            b"%08d" % number,
            datum.from_array(np.full((1, 2, 3), number, np.uint8), number).SerializeToString(),
        )
        for number in range(count)
    ]


def _put(environment: lmdb.Environment, records: list[tuple[bytes, bytes]]) -> None:
    with environment.begin(write=True) as transaction:
        for key, value in records:
            transaction.put(key, value)


def _net(folder: Path) -> Net:
    param = text.parse(NET, proto.NetParameter, "net")
    return Net(param, proto.TRAIN, create_backend("cpu"), RunContext(root=folder))


def _check_batches(net: Net, first: int, count: int) -> None:
    """Batches first .. first+count-1 are the records in turn."""
    for batch in range(first, first + count):
        net.forward()
        wanted = (4 * batch + np.arange(4)) % COUNT
        np.testing.assert_array_equal(net.blobs["label"].data.host(), wanted)
        data = net.blobs["data"].data.host()
        np.testing.assert_array_equal(
            data, np.broadcast_to(wanted[:, None, None, None], data.shape)
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with lmdb.open(str(tmp_path / "db")) as environment:
        _put(environment, _records(COUNT))
    return tmp_path


def test_the_script_has_the_database_open_already(folder: Path) -> None:
    with lmdb.open(str(folder / "db")) as environment, _net(folder) as net:
        _check_batches(net, 0, 4)
        with environment.begin() as transaction:
            assert transaction.stat()["entries"] == COUNT


def test_the_script_opens_the_database_of_a_net(folder: Path) -> None:
    with _net(folder) as net:
        _check_batches(net, 0, 2)
        with lmdb.open(str(folder / "db")) as environment:
            _check_batches(net, 2, 2)
            for record in _records(40)[COUNT:]:
                _put(environment, [record])
        _check_batches(net, 4, 20)


def test_two_nets_and_a_script_that_writes(folder: Path) -> None:
    with _net(folder) as first, lmdb.open(str(folder / "db")) as environment:
        _put(environment, _records(12)[COUNT:])
        with _net(folder) as second:
            _check_batches(first, 0, 5)
            second.forward()
            second.forward()
            second.forward()
            np.testing.assert_array_equal(second.blobs["label"].data.host(), [8, 9, 10, 11])


GROW = """
import lmdb, sys
environment = lmdb.open(sys.argv[1], map_size=1 << 28)
for number in range(100, 160):
    with environment.begin(write=True) as transaction:
        transaction.put(b"%08d" % number, bytes(400_000))
"""


def test_training_continues_while_another_program_enlarges_the_database(folder: Path) -> None:
    with _net(folder) as net:
        _check_batches(net, 0, 2)
        subprocess.run([sys.executable, "-c", GROW, str(folder / "db")], check=True)
        assert (folder / "db" / "data.mdb").stat().st_size > 20 << 20
        _check_batches(net, 2, 20)
