"""Write scripts with the names of Caffe's programs, for scripts that call those."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path

from prototxt_gen.errors import UnsupportedError, VerydeepError
from prototxt_gen.files import atomic_write_text, typed_errors
from runtime.cli.caffe_programs import PROGRAMS

NAME = "caffe-tools"
SUMMARY = "write scripts named caffe, convert_imageset ... that run verydeep as Caffe's programs"
EXAMPLE = "verydeep caffe-tools build/tools"

_MARK = "# Written by `verydeep caffe-tools`."
_SCRIPT = """\
#!/bin/sh
''':'
{mark}
exec {python} "$0" "$@"
'''
import sys

sys.path.append({root!r})
from runtime.cli.caffe_programs import main

sys.exit(main({name!r}))
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "folder", metavar="DIR", help="the folder to write to, such as build/tools of a Caffe tree"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace programs that this verb did not write"
    )
    parser.add_argument("--json", action="store_true", help="print the paths written as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the scripts.

    Raises:
        VerydeepError: a file cannot be written, or is another program's.
    """
    folder = Path(args.folder)
    paths = {name: folder / name for name in PROGRAMS}
    if not args.force:
        for path in paths.values():
            _refuse_other(path)
    for name, path in paths.items():
        atomic_write_text(path, script(name), VerydeepError)
        with typed_errors(path, VerydeepError):
            path.chmod(0o777 & ~_umask())
    written = [path.as_posix() for path in paths.values()]
    print(json.dumps({"files": written}) if args.json else "\n".join(written))
    return 0


def script(name: str) -> str:
    """The script for one program, which this interpreter runs.

    Raises:
        UnsupportedError: the interpreter has no path.
    """
    if not sys.executable:
        raise UnsupportedError(
            "caffe-tools: the path of the Python interpreter is unknown; expected one; start "
            "verydeep with the full path of python"
        )
    root = Path(__file__).resolve().parents[2]
    python = shlex.quote(sys.executable)
    return _SCRIPT.format(mark=_MARK, python=python, root=str(root), name=name)


def _refuse_other(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(200)
    except FileNotFoundError:
        return
    except OSError as cause:
        raise VerydeepError(
            f"{path}: cannot be replaced: {cause.strerror}; expected a script of this verb or no "
            "file; choose another folder"
        ) from cause
    if _MARK.encode() not in head:
        raise VerydeepError(
            f"{path}: is not a script of this verb; expected one, or no file; choose another "
            "folder, or give --force to replace it"
        )


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
