"""Layers as a user writes them."""

from __future__ import annotations

from typing import Any

import numpy as np

import runtime.pycaffe as caffe


class Multiply(caffe.Layer):
    """Multiplies by its param_str."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.factor = float(self.param_str)
        assert self.param_str_ == self.param_str

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        assert isinstance(propagate_down[0], bool)
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * top[0].diff


class Offset(caffe.Layer):
    """Adds a learnt number for each column; starts at 1."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = 1

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[...] = bottom[0].data + self.blobs[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        self.blobs[0].diff[...] += top[0].diff.sum(axis=0)
        bottom[0].diff[...] = top[0].diff


class Phase(caffe.Layer):
    """Tells its phase, as a number without axes."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape()

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[()] = self.phase


class Nested(caffe.Layer):
    """Runs a net of its own, whose file is its param_str."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.net = caffe.Net(self.param_str, self.phase)

    def reshape(self, bottom: Any, top: Any) -> None:
        self.net.blobs["data"].reshape(*bottom[0].shape)
        self.net.reshape()
        top[0].reshape(*self.net.blobs[self.net.outputs[0]].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        found = self.net.forward(data=bottom[0].data)
        top[0].data[...] = found[self.net.outputs[0]]


class Growing(caffe.Layer):
    """Decides the shape of its top while it runs, as region proposals do."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1, 1)

    def forward(self, bottom: Any, top: Any) -> None:
        count = int(bottom[0].data.max())
        top[0].reshape(count, 1)
        top[0].data[...] = np.arange(count)[:, None]


class Failing(caffe.Layer):
    """Raises where its param_str says."""

    def setup(self, bottom: Any, top: Any) -> None:
        self._fail("setup")

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        self._fail("forward")

    def _fail(self, where: str) -> None:
        if self.param_str == where:
            raise LookupError(f"in {where}")


class Careful(Multiply):
    """Overrides the constructor, as careful users do."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.made_of = args[0].name


class Free:
    """No subclass of caffe.Layer."""

    def __init__(self, param: Any) -> None:
        self.param = param

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(2)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[:] = len(self.param.name)
