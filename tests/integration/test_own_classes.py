"""The tutorial on own classes, with a small net: three commands from weights to a classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.backend.registry import create_backend
from runtime.cli.main import main
from runtime.job.run import JobOptions, run_job
from tests.docs.pages import ROOT, blocks, command_lines

PAGE = ROOT / "docs" / "tutorials" / "own-classes.md"


@pytest.mark.slow
def test_the_tutorial_reaches_ninety_per_cent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = run_job(JobOptions(out=Path("base"), max_iter=600), create_backend("cpu"))
    files = json.loads(base.read_text())
    Path(files["caffemodel"]).rename("VGG_ILSVRC_16_layers.caffemodel")
    Path(files["deploy"]).rename("deploy.prototxt")
    for block in blocks(PAGE.read_text()):
        if block.language == "sh":
            for command in command_lines(block.text):
                assert main(command.split()[1:]) == 0, command
        elif block.language == "python":
            exec(compile(block.text, f"<line {block.line}>", "exec"), {})
    result = json.loads(Path("photos-net", "result.json").read_text())
    assert result["held_out_images"] == 50
    assert result["top1_error"] <= 0.1
    printed = capsys.readouterr().out
    assert '"coins"' in printed.partition("Prediction for")[2]
    assert "('bricks', 'coins', 'galaxies', 'grass', 'text') BGR, short side 73" in printed
