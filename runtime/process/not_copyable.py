"""Objects with device memory, files and threads, which cannot be copied."""

from __future__ import annotations

from typing import ClassVar

from prototxt_gen.errors import UnsupportedError


class CopyError(UnsupportedError, TypeError):
    """An object that cannot be pickled or copied; pickle and copy raise TypeError."""


class NotCopyable:
    """Base of classes whose objects cannot be pickled or copied.

    `substitute` is the advice in the error message.
    """

    __slots__ = ()
    substitute: ClassVar[str] = (
        "write the weights to a file, and build it again from its prototxt and that file"
    )

    def __reduce_ex__(self, protocol: object) -> str:
        """Raise an error.

        Raises:
            CopyError: always.
        """
        raise CopyError(
            f"{type(self).__name__}: cannot be pickled or copied; expected an object without "
            "device memory, files and threads of this process, which this one has; "
            f"{self.substitute}"
        )
