"""A format: valid samples, how they are damaged, and how the program reads them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""Damages a sample; the third argument holds all samples of the case, to splice from."""
Read = Callable[[bytes], None]
"""Gives one mutant to the program. The working folder is the worker's own."""


@dataclass(frozen=True)
class Case:
    """One kind of file of a format."""

    name: str
    samples: tuple[bytes, ...]
    mutate: Mutate
    read: Read


@dataclass(frozen=True)
class Format:
    """The cases of a format take turns: mutant i is of case i modulo their number.

    `prepare` is called in an empty working folder; the files it leaves there are those that the
    cases read beside the mutant. A worker begins with a copy of that folder.
    """

    name: str
    prepare: Callable[[], list[Case]]
    seconds: float = 5.0
    """CPU time that one mutant may take."""
    patience: float = 150.0
    """Real time that one mutant may take, on a machine that does other things as well."""
    memory: int = 192 << 20
    """Resident bytes that one mutant may add."""
    honest_memory: bool = False
    """Whether a file may ask for more memory than there is, as a prototxt may."""


class Mutant(NamedTuple):
    """A damaged file and the case it belongs to."""

    case: Case
    data: bytes


def make_mutant(name: str, cases: Sequence[Case], seed: int, index: int) -> Mutant:
    """Mutant `index` of a format; the same arguments give the same bytes in every process."""
    generator = random.Random(f"{name} {seed} {index}")
    case = cases[index % len(cases)]
    sample = generator.choice(case.samples)
    return Mutant(case, case.mutate(generator, sample, case.samples))
