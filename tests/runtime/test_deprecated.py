"""Former names of modules: they import, are the current module, and warn."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import runtime.deprecated

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(module.name for module in pkgutil.iter_modules(runtime.deprecated.__path__))


@pytest.mark.parametrize("name", NAMES)
def test_a_former_name_is_the_current_module_and_warns(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"runtime.{name}", raising=False)
    with pytest.warns(DeprecationWarning) as caught:
        module = importlib.import_module(f"runtime.{name}")
    assert module.__name__ != f"runtime.{name}"
    assert module is importlib.import_module(module.__name__)
    messages = [str(warning.message) for warning in caught]
    assert messages == [f"runtime.{name} is deprecated; import {module.__name__}"]


def test_every_way_of_importing_a_former_name() -> None:
    script = (
        "import runtime.net_io\n"
        "import runtime.net_io as module\n"
        "from runtime import net_io\n"
        "from runtime.net_io import copy_trained_layers\n"
        "from runtime.weights import net_weights\n"
        "assert runtime.net_io is module is net_io is net_weights\n"
        "assert copy_trained_layers is net_weights.copy_trained_layers\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # Python shows the warning to the program that imports the name, once, at its line.
    assert done.stderr.count("DeprecationWarning") == 1
    assert re.match(r"<string>:1: DeprecationWarning: runtime\.net_io is deprecated", done.stderr)


def test_importing_the_package_loads_no_former_name() -> None:
    script = "import sys, runtime.net; print([n for n in sys.modules if 'deprecated' in n])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_names_of_the_readme() -> None:
    from runtime.backend.registry import create_backend
    from runtime.net import Net
    from runtime.net.net import Net as Same

    assert Net is Same
    assert callable(create_backend)
