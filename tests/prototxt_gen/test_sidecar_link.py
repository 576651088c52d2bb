"""A solver and its sidecar: copies of the solver, and fields that differ."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from prototxt_gen import text
from prototxt_gen.errors import ProtoError
from prototxt_gen.generate import write_all
from prototxt_gen.sidecar import describe_sidecar, locate_sidecar, read_sidecar
from prototxt_gen.spec import builtin_spec, with_values

NAME = "solver.verydeep.toml"


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_all(builtin_spec("A"), "nets/A")
    return tmp_path


def test_a_generated_solver_names_its_sidecar(nets: Path) -> None:
    first, *rest = Path("nets/A/solver.prototxt").read_text().splitlines()
    assert first == f'# verydeep sidecar: "nets/A/{NAME}"'
    assert not any("sidecar" in line for line in rest)
    assert text.read_solver("nets/A/solver.prototxt").max_iter == 370_000


@pytest.mark.parametrize("copy", ["nets/A/fast.prototxt", "elsewhere/solver.prototxt", "s.txt"])
def test_a_copied_solver_keeps_its_sidecar(nets: Path, copy: str) -> None:
    Path(copy).parent.mkdir(exist_ok=True)
    shutil.copy("nets/A/solver.prototxt", copy)
    assert locate_sidecar(copy) == Path("nets/A", NAME)
    assert read_sidecar(copy) == read_sidecar("nets/A/solver.prototxt")


def test_a_copied_folder_uses_its_own_files(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree("nets/A", "nets/B")
    Path("nets/B", NAME).write_text("[data.train]\nshort_side = 72\n")
    assert read_sidecar("nets/B/solver.prototxt").train.short_side == 72
    Path("nets/B/solver.prototxt").rename("nets/B/mine.prototxt")
    assert read_sidecar("nets/B/mine.prototxt").train.short_side == 72
    Path("nets/B", NAME).rename("nets/B/mine.verydeep.toml")
    assert read_sidecar("nets/B/mine.prototxt").train.short_side == 72
    monkeypatch.chdir("nets/B")
    assert read_sidecar("mine.prototxt").train.short_side == 72


def test_a_missing_sidecar_is_an_error(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("elsewhere").mkdir()
    shutil.copy("nets/A/solver.prototxt", "elsewhere")
    monkeypatch.chdir("elsewhere")
    with pytest.raises(ProtoError, match=rf"solver.prototxt:1: .*nets/A/{NAME} is missing"):
        read_sidecar("solver.prototxt")
    lines = Path("solver.prototxt").read_text().splitlines(keepends=True)
    Path("solver.prototxt").write_text("".join(lines[1:]))
    assert locate_sidecar("solver.prototxt") is None


@pytest.mark.parametrize(
    "line",
    [
        "#verydeep sidecar: other.toml",
        '  # verydeep sidecar:   "other.toml"  ',
        "\r\n# verydeep sidecar: other.toml\r",
        "max_iter: 3\n# verydeep sidecar: other.toml",
    ],
)
def test_comments_as_people_write_them(tmp_path: Path, line: str) -> None:
    solver = tmp_path / "s.prototxt"
    solver.write_bytes(f"{line}\nbase_lr: 1\n".encode())
    with pytest.raises(ProtoError, match=r"the sidecar other\.toml is missing"):
        read_sidecar(solver)
    (tmp_path / "other.toml").write_text("[parallel]\nshards = 2\n")
    assert read_sidecar(solver).shards == 2


def test_two_sidecars_are_refused(nets: Path) -> None:
    shutil.copy("nets/A/solver.prototxt", "nets/A/mine.prototxt")
    shutil.copy(f"nets/A/{NAME}", "nets/A/mine.verydeep.toml")
    assert locate_sidecar("nets/A/mine.prototxt") == Path("nets/A/mine.verydeep.toml")
    Path("nets/A/mine.verydeep.toml").write_text("[parallel]\nshards = 2\n")
    with pytest.raises(ProtoError, match=rf"{NAME}, and .*mine.verydeep.toml .*expected one"):
        read_sidecar("nets/A/mine.prototxt")


def _changed(old: str, new: str) -> Any:
    path = Path("nets/A/solver.prototxt")
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    return text.read_solver(path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('lr_policy: "multistep"', 'lr_policy: "fixed"', 'lr_policy is "fixed"'),
        ('lr_policy: "multistep"', 'lr_policy: "step"', 'lr_policy is "step"'),
        ("gamma: 0.1", "gamma: 0.5", "gamma is 0.5"),
    ],
)
def test_fields_that_differ_are_refused(nets: Path, old: str, new: str, words: str) -> None:
    param = _changed(old, new)
    lines = Path("nets/A/solver.prototxt").read_text().splitlines()
    place = lines.index(new) + 1
    toml = Path("nets/A", NAME).read_text().splitlines()
    other = next(i for i, v in enumerate(toml, 1) if v.startswith(
        "factor" if "gamma" in words else "[schedule]"))  # fmt: skip
    with pytest.raises(ProtoError) as caught:
        read_sidecar("nets/A/solver.prototxt", param)
    message = str(caught.value)
    assert message.startswith(f"nets/A/solver.prototxt:{place}: {words}, and nets/A/{NAME}:{other}")


def test_fields_that_agree_are_accepted(nets: Path) -> None:
    path = "nets/A/solver.prototxt"
    assert read_sidecar(path, text.read_solver(path)).schedule is not None
    assert read_sidecar(path, _changed("gamma: 0.1\n", "")).schedule is not None
    write_all(with_values(builtin_spec("A"), {"solver.lr_policy": "fixed"}), "nets/A")
    assert read_sidecar(path, _changed('"fixed"', '"step"')).schedule is None


def test_a_line_lists_the_changes(nets: Path) -> None:
    line = describe_sidecar(Path("s"), read_sidecar("nets/A/solver.prototxt"))
    assert "\n" not in line and line.startswith("Sidecar s: data.train.short_side = 256; ")
    for words in (
        "data.train.shuffle = true",
        "lr_policy is replaced by schedule",
        "the rate times",
    ):
        assert words in line
    Path("empty.verydeep.toml").write_text("")
    assert (
        describe_sidecar(Path("e"), read_sidecar("empty.prototxt")) == "Sidecar e: changes nothing"
    )
