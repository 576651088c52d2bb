from __future__ import annotations

import sys

import pytest

from runtime.cli.main import main


def test_without_a_gpu_one_sentence_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert main(["device_query", "-gpu", "0"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(
        "verydeep device_query: backend 'gpu': PyCUDA cannot be imported ("
    )
    assert "install it: pip install 'verydeep[cuda]'" in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ("", "--gpu: expected a number, a list or all, got nothing; name a GPU"),
        ("one", "--gpu: expected a number such as 0, a list such as 0,1, or all, got 'one'"),
    ],
)
def test_a_list_that_is_none_is_refused(
    gpus: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device_query", f"--gpu={gpus}"]) == 2
    assert words in capsys.readouterr().err
