"""Exceptions that are both this project's and the built-in ones that pycaffe raises."""

from __future__ import annotations

from prototxt_gen.errors import DataError, ProtoError, ShapeError, UnsupportedError


class MissingFileError(DataError, RuntimeError):
    """A file cannot be opened."""


class ImageError(DataError, OSError):
    """An image cannot be read or decoded."""


class CallError(ProtoError, RuntimeError):
    """A call is not possible in the current state of a net, a solver or the module."""


class ArgumentError(ProtoError, TypeError):
    """The arguments match no form of a constructor."""


class FieldError(ProtoError, AttributeError):
    """A message has no field of a name."""


class ArrayError(ShapeError, ValueError):
    """An array or a message has the wrong shape."""


class AlignmentError(ShapeError, AssertionError):
    """No crop aligns two tops."""


class MissingPackageError(UnsupportedError, ImportError):
    """An optional package is not installed."""


class UndefinedMapException(UnsupportedError):  # noqa: N818  pycaffe's name
    """A layer has no coordinate map."""


class AxisMismatchException(ShapeError):  # noqa: N818  pycaffe's name
    """Coordinate maps refer to different axes."""
