"""The errors a user can meet. They live here because every package may import this one.

A message reads `where: what; expected ..., got ...; how to fix`. The command line prints it
without a traceback and ends with exit status 2.
"""

from __future__ import annotations


class VerydeepError(Exception):
    """Root of every error that is the user's to read."""


class ProtoError(VerydeepError):
    """A prototxt or binary message that does not parse, or that says something impossible."""


class ShapeError(VerydeepError):
    """Blobs, weights or images whose shapes do not fit together."""


class DataError(VerydeepError):
    """A database, image, label or mean file that is missing, corrupt or out of range."""


class SnapshotError(VerydeepError):
    """Weights or solver state that cannot be read, written or restored."""


class DeviceError(VerydeepError):
    """A device that is absent, out of memory or unable to run what was asked."""


class KernelBuildError(VerydeepError):
    """A kernel that does not compile; carries the compiler's words."""


class UnsupportedError(VerydeepError):
    """A layer type, op or option that is known by name and not offered."""


class TrainingError(VerydeepError):
    """A run that cannot usefully go on: a loss that is NaN or stuck."""
