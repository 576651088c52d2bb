from __future__ import annotations

from pathlib import Path

import pytest

from cuda_kernels.cache import cache_folder, cached, digest
from prototxt_gen.errors import KernelBuildError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def test_the_folder_is_the_users(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home / "home" / ".cache" / "verydeep"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder() == home / "xdg" / "verydeep"
    assert cache_folder().stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_used_is_passed_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file where the folder should be stops even the superuser.
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    assert cache_folder().parent == home / "tmp"


def test_a_folder_that_anybody_may_write_is_not_trusted(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (home / "verydeep").mkdir()
    (home / "verydeep").chmod(0o777)
    assert cache_folder().parent == home / "tmp"


def test_without_any_folder_the_error_lists_those_tried(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(home / "file"))
    with pytest.raises(KernelBuildError) as caught:
        cache_folder()
    assert str(caught.value).startswith(f"kernel cache: none of {home}/file/verydeep, {home}/file/")
    assert str(caught.value).endswith("for built kernels; set XDG_CACHE_HOME to one")


def test_a_build_happens_once_and_whole(home: Path) -> None:
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(path)
        path.write_text("done")

    first, second = cached("a.bin", build), cached("a.bin", build)
    assert first == second == cache_folder() / "a.bin"
    assert first.read_text() == "done"
    assert len(built) == 1
    assert built[0] != first


def test_a_build_that_fails_leaves_nothing(home: Path) -> None:
    def build(path: Path) -> None:
        path.write_text("half")
        raise KernelBuildError("no")

    with pytest.raises(KernelBuildError):
        cached("a.bin", build)
    assert list(cache_folder().iterdir()) == []


def test_a_digest_depends_on_the_borders_of_its_parts() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab") == digest(b"ab")
