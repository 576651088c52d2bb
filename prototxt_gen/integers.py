"""Integer division that rounds up."""

from __future__ import annotations


def ceil_div(count: int, size: int) -> int:
    """The smallest integer that is at least count / size."""
    return -(-count // size)


def round_up(count: int, multiple: int) -> int:
    """The smallest multiple of a number that is at least `count`."""
    return ceil_div(count, multiple) * multiple
