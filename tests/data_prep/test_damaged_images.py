"""Damaged image files: refused, or read alike in every mode; never another error."""

from __future__ import annotations

import resource

import numpy as np
import pytest

from data_prep import datum
from data_prep.image_file import MAX_PIXELS, read_header
from prototxt_gen.errors import DataError
from tests.data_prep.image_samples import accepted, oriented, refused


def mutants(content: bytes, count: int, rng: np.random.Generator) -> list[bytes]:
    """Copies with a few bytes changed, inserted or removed, mostly near the beginning."""
    found = []
    for _ in range(count):
        data = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            if not data:
                break
            reach = len(data) if rng.random() < 0.4 else min(len(data), 80)
            place = int(rng.integers(0, reach))
            change = rng.integers(0, 5)
            if change == 0:
                data[place] ^= 1 << int(rng.integers(0, 8))
            elif change == 1:
                data[place] = int(rng.choice([0, 1, 127, 128, 255]))
            elif change == 2:
                data[place:place] = rng.bytes(int(rng.integers(1, 4)))
            elif change == 3:
                del data[place : place + int(rng.integers(1, 4))]
            else:
                data[place : place + 4] = rng.choice([0, 1, 16, 127, 255], 4).tolist()
        found.append(bytes(data))
    return found


def read_in_all_modes(content: bytes) -> None:
    """A damaged file is refused in every mode, or read with the same pixels."""
    found: list[np.ndarray | None] = []
    for mode in (datum.NATIVE, datum.COLOR, datum.GRAY):
        try:
            found.append(datum.decode(content, "k", mode))
        except DataError:
            found.append(None)
    native, color, gray = found
    assert len({image is None for image in found}) == 1
    if native is not None and color is not None and gray is not None:
        header = read_header(content, "k")
        assert {image.shape[:2] for image in found} == {(header.height, header.width)}
        assert header.channels in (None, native.shape[2])
        np.testing.assert_array_equal(native, color if native.shape[2] == 3 else gray)


def _samples() -> dict[str, bytes]:
    return {**{name: content for name, (content, _) in accepted().items()}, **oriented(6)}


def test_damaged_files() -> None:
    rng = np.random.default_rng(0)
    for content in (*_samples().values(), *refused().values()):
        for mutant in mutants(content or b"\0", 25, rng):
            read_in_all_modes(mutant)


@pytest.mark.slow
@pytest.mark.parametrize("name", _samples())
def test_many_damaged_files(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for mutant in mutants(_samples()[name], 3000, np.random.default_rng(1)):
        read_in_all_modes(mutant)
    # In KiB: three modes of the largest image that is accepted.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * MAX_PIXELS / 1024 * 3
