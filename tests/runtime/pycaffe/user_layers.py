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
    """Adds a trained number to each column; starts at 1."""

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
    """Outputs its phase as a number without axes."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape()

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[()] = self.phase


class Nested(caffe.Layer):
    """Runs another net, whose file is its param_str."""

    def setup(self, bottom: Any, top: Any) -> None:
        self.net = caffe.Net(self.param_str, self.phase)

    def reshape(self, bottom: Any, top: Any) -> None:
        self.net.blobs["data"].reshape(*bottom[0].shape)
        self.net.reshape()
        top[0].reshape(*self.net.blobs[self.net.outputs[0]].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        result = self.net.forward(data=bottom[0].data)
        top[0].data[...] = result[self.net.outputs[0]]


class Growing(caffe.Layer):
    """Sets the shape of its top in forward, as region proposals do."""

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(1, 1)

    def forward(self, bottom: Any, top: Any) -> None:
        count = int(bottom[0].data.max())
        top[0].reshape(count, 1)
        top[0].data[...] = np.arange(count)[:, None]


class Failing(caffe.Layer):
    """Raises an error in the method that its param_str names."""

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
    """Overrides the constructor and calls it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.made_of = args[0].name


class Free:
    """A class that is not derived from caffe.Layer."""

    def __init__(self, param: Any) -> None:
        self.param = param

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(2)

    def forward(self, bottom: Any, top: Any) -> None:
        top[0].data[:] = len(self.param.name)
