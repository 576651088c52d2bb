"""pycaffe's exceptions as ours: a script that catches ValueError or RuntimeError still does."""

from __future__ import annotations

from prototxt_gen.errors import DataError, ProtoError, ShapeError, UnsupportedError


class MissingFileError(DataError, RuntimeError):
    """A file that cannot be opened; pycaffe raises RuntimeError."""


class CallError(ProtoError, RuntimeError):
    """A call that this net or module does not allow; pycaffe raises RuntimeError."""


class ArgumentError(ProtoError, TypeError):
    """Arguments that fit no form of a constructor; pycaffe raises a TypeError."""


class ArrayError(ShapeError, ValueError):
    """An array or message whose shape does not fit; pycaffe raises ValueError."""


class AlignmentError(ShapeError, AssertionError):
    """Tops that no crop aligns; pycaffe asserts."""


class UndefinedMapException(UnsupportedError):  # noqa: N818  pycaffe's name
    """A layer that maps no coordinates."""


class AxisMismatchException(ShapeError):  # noqa: N818  pycaffe's name
    """Coordinate maps of different axes."""
