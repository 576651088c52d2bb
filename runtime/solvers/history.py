"""History: the values that an update rule keeps between iterations, such as the momentum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prototxt_gen.errors import SnapshotError
from runtime.backend.base import HostArray
from runtime.core.blob import Blob
from runtime.net import Net
from runtime.solvers.update_rule import UpdateRule


class History:
    """The history blobs of a net in the order of a solverstate. Caffe: SGDSolver::history_.

    The first history of every weight blob comes first, then the second of every one, if the rule
    has two.

    Shapes: each blob has the shape of its weight blob.
    """

    def __init__(self, net: Net, rule: UpdateRule) -> None:
        """Create the blobs, with zeros."""
        params = net.params.learnable
        self.type = rule.type
        self.params = len(params)
        self.blobs = [
            Blob(net.backend, blob.shape, f"history of {blob.name}")
            for _ in range(rule.histories)
            for blob in params
        ]

    def __len__(self) -> int:
        return len(self.blobs)

    def __iter__(self) -> Iterator[Blob]:
        return iter(self.blobs)

    def of_param(self, index: int) -> list[Blob]:
        """The history blobs of one weight blob."""
        return self.blobs[index :: self.params]

    def load(self, arrays: Sequence[HostArray], source: str) -> None:
        """Copy the history of a solverstate; nothing changes if it does not fit.

        Shapes: one array for each blob, with its shape, or with four axes and its number of
        values.

        Raises:
            SnapshotError: the number of arrays or a shape differs; `source` is the file.
        """
        if len(arrays) != len(self.blobs):
            raise SnapshotError(
                f"{source}: Incorrect length of history blobs.; expected {len(self.blobs)} "
                f"({self.type} over {self.params} weight blobs), got {len(arrays)}; "
                "resume with the net and the solver type that wrote it"
            )
        for blob, values in zip(self.blobs, arrays):
            if tuple(values.shape) != blob.shape and (
                values.size != blob.count() or values.ndim != 4
            ):
                raise SnapshotError(
                    f"{source}: {blob.name}; expected shape {blob.shape}, got "
                    f"{tuple(values.shape)}; resume with the net that wrote it"
                )
        for blob, values in zip(self.blobs, arrays):
            blob.data.mutable_host()[...] = values.reshape(blob.shape)
