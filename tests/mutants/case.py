"""A format: valid samples, a function that damages them, and one that reads them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""Damages a sample; the third argument contains all samples of the case, for splices."""
Read = Callable[[bytes], None]
"""Reads one mutant, in the working folder of the worker."""


@dataclass(frozen=True)
class Case:
    """One kind of file of a format."""

    name: str
    samples: tuple[bytes, ...]
    mutate: Mutate
    read: Read


@dataclass(frozen=True)
class Format:
    """The cases of a format: mutant i belongs to case i modulo their number.

    `prepare` is called in an empty working folder and writes the further files that the cases read.
    A worker begins with a copy of that folder.
    """

    name: str
    prepare: Callable[[], list[Case]]
    seconds: float = 5.0
    """The limit of CPU time for one mutant. Units: s."""
    patience: float = 150.0
    """The limit of real time for one mutant on a busy machine. Units: s."""
    memory: int = 192 << 20
    """The limit of additional resident memory for one mutant. Units: bytes."""
    honest_memory: bool = False
    """Whether a valid file can require more memory than there is, such as a prototxt."""


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
