"""DebugInfo: logs the mean absolute value of every blob in each pass. Caffe: net.cpp."""

from __future__ import annotations

import math

from runtime.logs.glog import caffe_log, number
from runtime.net import Net


class DebugInfo:
    """Logs the passes of a net while `enabled`.

    Only then it is among the net's hooks, because an observed net does not fuse its layers.
    """

    def __init__(self, net: Net, enabled: bool = False) -> None:
        self.net = net
        self._enabled = False
        self.enabled = enabled

    @property
    def enabled(self) -> bool:
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if value and not self._enabled:
            self.net.after_forward.append(self.after_forward)
            self.net.after_backward.append(self.after_backward)
        elif self._enabled and not value:
            self.net.after_forward.remove(self.after_forward)
            self.net.after_backward.remove(self.after_backward)
        self._enabled = value

    def after_forward(self, index: int) -> None:
        """Log the tops and weights of a layer."""
        layer = self.net.layers[index]
        asum = self.net.backend.vectors.asum
        for blob in self.net.tops[index]:
            mean = asum(blob.data.dev()) / max(blob.count(), 1)
            self._log("net.cpp:628", "Forward", index, f"top blob {blob.name} data", mean)
        for i, blob in enumerate(layer.blobs):
            mean = asum(blob.data.dev()) / max(blob.count(), 1)
            name = self._param_name(index, i)
            self._log("net.cpp:640", "Forward", index, f"param blob {name} data", mean)

    def after_backward(self, index: int) -> None:
        """Log the gradients of a layer's bottoms and weights."""
        if self.net.layer_need_backward[index]:
            self._gradients(index)
        if index == 0:
            self._all_params()

    def _gradients(self, index: int) -> None:
        asum = self.net.backend.vectors.asum
        needed = self.net.bottom_need_backward[index]
        for blob, need in zip(self.net.bottoms[index], needed):
            if need:
                mean = asum(blob.diff.dev()) / max(blob.count(), 1)
                self._log("net.cpp:654", "Backward", index, f"bottom blob {blob.name} diff", mean)
        layer = self.net.layers[index]
        for i, blob in enumerate(layer.blobs):
            if layer.propagates_to_params(i):
                mean = asum(blob.diff.dev()) / max(blob.count(), 1)
                self._log("net.cpp:664", "Backward", index, f"param blob {i} diff", mean)

    def _all_params(self) -> None:
        backend = self.net.backend
        l1, l2 = [0.0, 0.0], [0.0, 0.0]
        for blob in self.net.params.learnable:
            for k, memory in enumerate((blob.data, blob.diff)):
                l1[k] += backend.vectors.asum(memory.dev())
                l2[k] += backend.vectors.sumsq(memory.dev())
        caffe_log(
            "net.cpp:745",
            "    [Backward] All net params (data, diff): L1 norm = (%s, %s); L2 norm = (%s, %s)",
            number(l1[0]),
            number(l1[1]),
            number(math.sqrt(l2[0])),
            number(math.sqrt(l2[1])),
        )

    def _param_name(self, layer: int, index: int) -> str:
        given = self.net.layers[layer].param.param
        return str(given[index].name) if index < len(given) and given[index].name else str(index)

    def _log(self, source: str, direction: str, index: int, blob: str, mean: float) -> None:
        name = self.net.layer_names[index]
        caffe_log(source, "    [%s] Layer %s, %s: %s", direction, name, blob, number(mean))
