"""All formats by name."""

from __future__ import annotations

from tests.mutants import (
    read_databases,
    read_folders,
    read_lmdb,
    read_nets,
    read_solvers,
    read_texts,
    read_weights,
)
from tests.mutants.case import Format

FORMATS: dict[str, Format] = {
    form.name: form
    for module in (
        read_nets,
        read_solvers,
        read_weights,
        read_lmdb,
        read_databases,
        read_texts,
        read_folders,
    )
    for form in module.FORMATS
}
