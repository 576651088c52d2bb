"""Logs read back: original Caffe's, ours, and JSON lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from prototxt_gen.errors import DataError
from runtime.logs.reader import read_log

TRACE = Path(__file__).parents[2] / "golden" / "traces" / "lenet_step" / "log.txt"

OLD = """\
I1231 23:59:50.000000 7 solver.cpp:289] Solving toy
I1231 23:59:51.500000 7 solver.cpp:347] Iteration 0, Testing net (#0)
I1231 23:59:52.000000 7 solver.cpp:414]     Test net output #0: accuracy/top1 = 0.25
I1231 23:59:52.000000 7 solver.cpp:414]     Test net output #1: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:53.000000 7 solver.cpp:347] Iteration 0, Testing net (#1)
I1231 23:59:53.000000 7 solver.cpp:414]     Test net output #0: loss = 3 (* 1 = 3 loss)
I1231 23:59:55.000000 7 solver.cpp:239] Iteration 0 (0 iter/s, 1s/5 iters), loss = 2.75
I1231 23:59:55.000000 7 solver.cpp:258]     Train net output #0: loss = 2.75 (* 1 = 2.75 loss)
I1231 23:59:55.000000 7 sgd_solver.cpp:112] Iteration 0, lr = 0.1
I0101 00:00:10.000000 7 solver.cpp:239] Iteration 5 (1 iter/s, 5s/5 iters), loss = 1e-05
I0101 00:00:10.000000 7 solver.cpp:258]     Train net output #0: loss = 1e-05 (* 1 = 1e-05 loss)
I0101 00:00:10.000000 7 sgd_solver.cpp:112] Iteration 5, lr = 0.01
I0101 00:00:11.000000 7 solver.cpp:239] Iteration 10 (1 iter/s, 5s/5 iters), loss = nan
I0101 00:00:11.000000 7 solver.cpp:258]     Train net output #0: loss = nan (* 1 = nan loss)
"""
AGAIN = """\
I0101 00:01:00.000000 8 solver.cpp:289] Solving toy
I0101 00:01:01.000000 8 solver.cpp:239] Iteration 5 (1 iter/s, 5s/5 iters), loss = 0.5
I0101 00:01:01.000000 8 solver.cpp:258]     Train net output #0: loss = 0.5 (* 1 = 0.5 loss)
I0101 00:01:01.000000 8 sgd_solver.cpp:112] Iteration 5, lr = 0.02
"""


def _read(folder: Path, content: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    path = folder / "log"
    path.write_text(content)
    table = read_log(path)
    return table.train, table.test


def test_caffes_lines(tmp_path: Path) -> None:
    train, test = _read(tmp_path, OLD)
    assert test == [
        {
            "NumIters": 0.0,
            "Seconds": 2.0,
            "LearningRate": 0.1,
            "accuracy/top1": 0.25,
            "loss": 2.5,
            "loss (#1)": 3.0,
        }
    ]
    assert train[0] == {"NumIters": 0.0, "Seconds": 5.0, "LearningRate": 0.1, "loss": 2.75}
    # The line has no year, and the year ended.
    assert train[1] == {"NumIters": 5.0, "Seconds": 20.0, "LearningRate": 0.01, "loss": 1e-5}
    assert math.isnan(train[2]["loss"]) and train[2]["LearningRate"] == 0.01


def test_the_log_of_newer_glog() -> None:
    table = read_log(TRACE)
    assert [row["NumIters"] for row in table.train] == list(range(50))
    assert [row["NumIters"] for row in table.test] == [0, 10, 20, 30, 40, 50]
    assert [row["accuracy"] for row in table.test] == [0.05, 0.25, 0.75, 0.85, 0.95, 1.0]
    assert [row["LearningRate"] for row in table.train[::15]] == [0.02, 0.01, 0.005, 0.0025]
    assert table.train[49]["loss"] == 0.01467


def test_a_resumed_run_makes_void_what_it_does_again(tmp_path: Path) -> None:
    train, test = _read(tmp_path, OLD + AGAIN)
    assert [(row["NumIters"], row["loss"]) for row in train] == [(0, 2.75), (5, 0.5)]
    assert len(test) == 1
    train, test = _read(tmp_path, OLD + OLD)
    assert [row["NumIters"] for row in train] == [0, 5, 10] and len(test) == 1


def _json(*records: dict[str, object]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


TRAIN = {"event": "train", "lr": 0.1, "seconds": 1.5}


def test_json_lines(tmp_path: Path) -> None:
    content = _json(
        {"event": "start", "iteration": 0, "net": "toy"},
        {"event": "test", "iteration": 0, "net": 0, "outputs": {"acc": 0.5}, "seconds": 1},
        {"event": "test", "iteration": 0, "net": 1, "outputs": {"acc": 0.25}, "seconds": 1},
        {**TRAIN, "iteration": 0, "outputs": {"loss": 2.0}},
        {**TRAIN, "iteration": 2, "outputs": {"loss": None}},
        {"event": "end", "iteration": 3, "reason": "done"},
    )
    train, test = _read(tmp_path, content)
    assert test == [
        {"NumIters": 0, "Seconds": 1, "LearningRate": 0.1, "acc": 0.5, "acc (#1)": 0.25}
    ]
    assert train[0] == {"NumIters": 0, "Seconds": 1.5, "LearningRate": 0.1, "loss": 2.0}
    assert math.isnan(train[1]["loss"])
    again = _json({"event": "start", "iteration": 2}, {**TRAIN, "iteration": 2, "outputs": {}})
    train, _ = _read(tmp_path, content + again)
    assert train[1] == {"NumIters": 2, "Seconds": 1.5, "LearningRate": 0.1}
    # A run that was killed while it wrote.
    assert len(_read(tmp_path, content + '{"event": "tra')[0]) == 2


def test_what_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the log cannot be read: No such file"):
        read_log(tmp_path / "none")
    with pytest.raises(DataError, match="no iteration in it"):
        _read(tmp_path, "nothing\n")
    with pytest.raises(DataError, match="log:1: no JSON"):
        _read(tmp_path, '{"event": \n{"event": "end"}\n')


CAFFE = (
    "I1231 23:59:55.000000 7 solver.cpp:239] Iteration {iteration}, loss = 1\n"
    "I1231 23:59:55.000000 7 solver.cpp:258]     Train net output #0: loss = {loss} (* 1 = 2)\n"
    "I1231 23:59:55.000000 7 sgd_solver.cpp:112] Iteration {iteration}, lr = {rate}\n"
)


@pytest.mark.parametrize(
    "values",
    [
        {"iteration": "9" * 100_000},
        {"iteration": "1" * 16},
        {"iteration": "\u0665"},
        {"loss": "1" * 100_000},
        {"loss": "e"},
        {"loss": "--"},
        {"loss": "1e"},
        {"loss": "1.2.3"},
        {"loss": "."},
        {"rate": "9" * 100_000},
        {"rate": "1e"},
    ],
    ids=lambda value: str(value)[:30],
)
def test_numbers_that_are_none_are_passed_over(values: dict[str, str], tmp_path: Path) -> None:
    whole = CAFFE.format(iteration=0, loss=2.5, rate=0.1)
    broken = CAFFE.format(**{"iteration": 5, "loss": 2.0, "rate": 0.01, **values})
    train, _ = _read(tmp_path, whole + broken)
    assert train[0] == {"NumIters": 0, "Seconds": 0, "LearningRate": 0.1, "loss": 2.5} or (
        "rate" not in values and len(train) == 1
    )
    assert all(isinstance(value, float) for row in train for value in row.values())


def test_numbers_beyond_a_float_s_are_infinite(tmp_path: Path) -> None:
    train, _ = _read(tmp_path, CAFFE.format(iteration=1, loss="1e999999999", rate="1e-999999999"))
    assert (train[0]["loss"], train[0]["LearningRate"]) == (math.inf, 0)


@pytest.mark.parametrize(
    "record",
    [
        {"iteration": "x"},
        {"iteration": 1.5},
        {"iteration": -1},
        {"iteration": None},
        {"iteration": True},
        {"iteration": [1]},
        {"outputs": [1, 2]},
        {"outputs": "text"},
        {"outputs": {"loss": "text"}},
        {"outputs": {"loss": {"deep": 1}}},
        {"lr": "text"},
        {"seconds": []},
        {"event": ["train"]},
        {"event": {"a": 1}},
        {"event": "test", "net": "x"},
        {"event": "test", "net": -5},
        {"event": "start", "iteration": "x"},
    ],
    ids=str,
)
def test_records_of_other_kinds_end_nothing(record: dict[str, object], tmp_path: Path) -> None:
    good = {**TRAIN, "iteration": 3, "outputs": {"loss": 1.0}}
    train, _ = _read(tmp_path, _json(good, {**TRAIN, "iteration": 5, **record}))
    assert train[0]["loss"] == 1.0


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"event":' * 100_000, "9" * 100_000, '{"a": ' + "1" * 5000 + "}"],
    ids=lambda value: value[:12],
)
def test_lines_without_end(text: str, tmp_path: Path) -> None:
    good = _json({**TRAIN, "iteration": 3, "outputs": {}})
    with pytest.raises(DataError, match="log:2: no JSON: ") as caught:
        _read(tmp_path, f"{good}{text}\n{good}")
    assert len(str(caught.value)) < 1000


def _caffe_run(
    thread: int, first: int, last: int, resumed: str = "", snapshot: int = 0, folder: str = ""
) -> str:
    head = f"I0101 00:00:00.000000 {thread} "
    lines = [f"{head}caffe.cpp:230] Resuming from {resumed}.solverstate"] if resumed else []
    lines.append(f"{head}solver.cpp:289] Solving toy")
    for n in range(first, last, 10):
        lines.append(
            f"{head}solver.cpp:239] Iteration {n} (1 iter/s, 1s/10 iters), loss = {thread}"
        )
        lines.append(
            f"{head}solver.cpp:258]     Train net output #0: loss = {thread} (* 1 = 1 loss)"
        )
    if snapshot:
        path = f"{folder}p_iter_{snapshot}.solverstate"
        lines.append(
            f"{head}sgd_solver.cpp:284] Snapshotting solver state to binary proto file {path}"
        )
    return "\n".join(lines) + "\n"


def _json_run(
    loss: int, first: int, last: int, snapshot: int = 0, continues: bool | None = None
) -> str:
    records: list[dict[str, object]] = [{"event": "start", "iteration": first}]
    records[0] |= {} if continues is None else {"continues": continues}
    records += [
        {**TRAIN, "iteration": n, "outputs": {"loss": loss}} for n in range(first, last, 10)
    ]
    records += [{"event": "snapshot", "iteration": snapshot, "files": []}] if snapshot else []
    return _json(*records)


@pytest.mark.parametrize(
    ("content", "rows", "runs"),
    [
        (_caffe_run(1, 0, 40) + _caffe_run(2, 0, 20), [(0, 2), (10, 2)], 2),
        (_caffe_run(1, 0, 40, "", 35) + _caffe_run(2, 40, 50, "p_iter_35"), "joined", 1),
        (_caffe_run(1, 0, 40, "", 35) + _caffe_run(2, 40, 50, "q_iter_38"), [(40, 2)], 2),
        (_caffe_run(1, 0, 40, "", 35) + _caffe_run(2, 40, 50, "/old/p_iter_35"), "joined", 1),
        (_caffe_run(1, 0, 40, "", 35) + _caffe_run(2, 40, 50, "./p_iter_35"), "joined", 1),
        (_caffe_run(1, 0, 40, "", 35) + _caffe_run(2, 40, 50, "q_iter_35"), [(40, 2)], 2),
        (
            _caffe_run(1, 0, 40, "", 35, "a/") + _caffe_run(2, 40, 50, "b/p_iter_35"),
            [(40, 2)],
            2,
        ),
        (_json_run(1, 0, 40, 40) + _json_run(2, 40, 50, 0, True), "joined", 1),
        (_json_run(1, 0, 40, 40) + _json_run(2, 40, 50, 0, False), [(40, 2)], 2),
        (_json_run(1, 0, 40, 35) + _json_run(2, 0, 20), [(0, 2), (10, 2)], 2),
        (_json_run(1, 0, 40, 40) + _json_run(2, 40, 50), "joined", 1),
        (_json_run(1, 0, 40, 30) + _json_run(2, 40, 50), [(40, 2)], 2),
        (_json_run(1, 0, 40, 30) * 3, [(0, 1), (10, 1), (20, 1), (30, 1)], 3),
    ],
)
def test_two_runs_are_not_joined(
    content: str,
    rows: str | list[tuple[int, int]],
    runs: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train, _ = _read(tmp_path, content)
    joined = [(0, 1), (10, 1), (20, 1), (30, 1), (40, 2)]
    assert [(row["NumIters"], row["loss"]) for row in train] == (
        joined if rows == "joined" else rows
    )
    assert (f"the last of {runs} runs is read" in caplog.text) is (runs > 1)


def test_runs_that_wrote_at_the_same_time_are_not_joined(tmp_path: Path) -> None:
    one, two = (_caffe_run(n, 0, 40).splitlines() for n in (1, 2))
    mixed = "\n".join(line for pair in zip(one, two) for line in pair)
    train, _ = _read(tmp_path, mixed)
    assert [(row["NumIters"], row["loss"]) for row in train] == [(n, 2) for n in range(0, 40, 10)]


def test_an_iteration_before_the_last_one_is_another_run(tmp_path: Path) -> None:
    without = [line for line in _caffe_run(1, 0, 40).splitlines() if "Solving" not in line]
    train, _ = _read(tmp_path, "\n".join(without * 2))
    assert [row["NumIters"] for row in train] == [0, 10, 20, 30]
