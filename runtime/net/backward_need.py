"""Which layers of a net run backward. Caffe: Net::Init."""

from __future__ import annotations

import logging

from runtime.net.wiring import Wiring

log = logging.getLogger("verydeep.net")


def limit_backward(net: Wiring) -> None:
    """Limit backward to layers between a loss and a weight that learns."""
    under_loss: set[str] = set()
    skip: set[str] = set()
    for i in reversed(range(len(net.layers))):
        layer, param = net.layers[i], net.layers[i].param
        tops = list(param.top)
        contributes = any(
            name in under_loss or weight for name, weight in zip(tops, layer.loss_weights)
        )
        if net.layer_need_backward[i] and all(name in skip for name in tops):
            net.layer_need_backward[i] = False
            net.bottom_need_backward[i] = [False] * len(param.bottom)
        if not contributes:
            net.layer_need_backward[i] = False
        word = "needs" if net.layer_need_backward[i] else "does not need"
        log.info("%s %s backward computation.", param.name, word)
        for j, name in enumerate(param.bottom):
            if contributes:
                under_loss.add(name)
            else:
                net.bottom_need_backward[i][j] = False
            if not net.bottom_need_backward[i][j]:
                skip.add(name)


def force_backward(net: Wiring) -> None:
    """Let every layer run backward, to every bottom that permits it."""
    for i, layer in enumerate(net.layers):
        net.layer_need_backward[i] = True
        net.bottom_need_backward[i] = [
            need or layer.allow_force_backward(j)
            for j, need in enumerate(net.bottom_need_backward[i])
        ]
        layer.param_propagate_down = [True] * len(layer.blobs)
