"""The bundle of a training from prototxts: `train --bundle`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.mean_file import read_mean
from data_prep.text_lines import read_lines
from prototxt_gen import generate, proto, text
from prototxt_gen.errors import DataError, UnsupportedError
from prototxt_gen.proto import Message
from prototxt_gen.sidecar import read_sidecar, smallest_and_largest
from runtime.bundle.bundle import Bundle
from runtime.bundle.preprocessing import Preprocessing
from runtime.job.finetune_net import deploy_net
from runtime.job.run import version
from runtime.job.training import TrainResult
from runtime.net.building import filter_net, net_state


@dataclass(frozen=True)
class TrainingBundle:
    """What is known of a bundle before the training."""

    deploy: Message
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    solver: str

    @classmethod
    def of(
        cls, solver: str | os.PathLike[str], labels: str | os.PathLike[str] | None
    ) -> TrainingBundle:
        """Read the solver, its net, its sidecar and the names of the classes.

        Raises:
            ProtoError: the net has no class scores, or no images of a known size.
            UnsupportedError: the solver does not name the file of its net.
            DataError: the names or the mean cannot be read.
        """
        param = text.read_solver(solver)
        path = str(param.net or param.train_net)
        if not path:
            raise UnsupportedError(
                f"{os.fspath(solver)}: --bundle: the solver contains the net; expected the name of "
                "its file in `net`; write the net into a file"
            )
        model = text.read_net(path)
        deploy = deploy_net(model)
        names: tuple[str, ...] = ()
        if labels is not None:
            names = tuple(line for _, line in read_lines(labels, "the labels", keep_empty=True))
        prepared = _preprocessing(model, deploy, read_sidecar(solver, param).test.short_side)
        return cls(deploy, prepared, _checked(names, deploy, labels), text.to_text(param))

    def write(self, path: str | os.PathLike[str], result: TrainResult) -> Path:
        """Write the bundle with the weights of the last snapshot.

        Raises:
            SnapshotError: there is no snapshot, or the bundle cannot be written.
        """
        with tempfile.TemporaryDirectory() as folder:
            model = Path(folder, generate.DEPLOY)
            text.write(model, self.deploy)
            bundle = Bundle(
                model,
                result.model,
                self.preprocessing,
                self.labels,
                str(self.deploy.name),
                metrics=dict(result.test),
                provenance={
                    "solver": self.solver,
                    "iterations": result.iterations,
                    "verydeep": version(),
                },
            )
            return bundle.write(path)


def _preprocessing(
    model: Message, deploy: Message, scale: int | tuple[int, int] | None
) -> Preprocessing:
    """The crop, the mean and the scale of the TEST phase."""
    height, width = (int(size) for size in deploy.layer[0].input_param.shape[0].dim[2:])
    side = None if scale is None else sum(smallest_and_largest(scale)) // 2
    for layer in filter_net(model, net_state(proto.TEST)).layer:
        param = layer.transform_param
        if layer.HasField("transform_param"):
            mean = tuple(float(value) for value in param.mean_value)
            if param.mean_file:
                mean = tuple(float(v) for v in read_mean(param.mean_file).mean(axis=(1, 2)))
            return Preprocessing((height, width), side, None, mean, float(param.scale))
    return Preprocessing((height, width), side)


def _checked(
    names: Sequence[str], deploy: Message, path: str | os.PathLike[str] | None
) -> tuple[str, ...]:
    """The names of the classes, if there is one for each output of the classifier."""
    sizes = [
        int(param.num_output)
        for layer in deploy.layer
        for param in (layer.inner_product_param, layer.convolution_param)
        if param.num_output
    ]
    if names and sizes and len(names) != sizes[-1]:
        raise DataError(
            f"{path}: {len(names)} labels for a net of {sizes[-1]} classes; expected a line for "
            "each class; give the list of the data set"
        )
    return tuple(names)
