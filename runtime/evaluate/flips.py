"""Whether test images are also evaluated mirrored. By default, only if training mirrored images."""

from __future__ import annotations

import logging
from pathlib import Path

from prototxt_gen import proto, text
from prototxt_gen.proto import Message
from runtime.layers.factory import class_of

log = logging.getLogger("verydeep.evaluate")


def choose_flip(model: Path, flag: bool | None = None) -> bool:
    """Return whether to average with mirrored images, and log the reason unless a flag decides.

    `flag` is the value of --flip or --no-flip, None if neither was given. A net without its
    training's data layer, such as a deploy net, is evaluated by the paper's protocol: with flips.
    """
    if flag is not None:
        return flag
    mirrored = mirrors_in_training(text.read_net(model))
    if mirrored is None:
        log.info(
            "%s: no data layer of the TRAIN phase shows whether training mirrored images; "
            "averaging with mirrored images; --no-flip omits them",
            model,
        )
        return True
    if mirrored:
        log.info("%s: training mirrored images; averaging with mirrored images", model)
    else:
        log.info("%s: training did not mirror images; evaluating without mirrored images", model)
    return mirrored


def default_flip(model: Path) -> bool:
    """Return what `choose_flip` returns without a flag; log nothing."""
    return mirrors_in_training(text.read_net(model)) is not False


def mirrors_in_training(model: Message) -> bool | None:
    """Return whether a net's TRAIN phase mirrors images; None if no layer of it reads images."""
    sources = [layer for layer in model.layer if _trains(layer) and _reads_images(layer)]
    if not sources:
        return None
    return any(bool(layer.transform_param.mirror) for layer in sources)


def _trains(layer: Message) -> bool:
    """Whether a net of the TRAIN phase may contain a layer, at any level and stage."""
    included = [rule for rule in layer.include if _allows(rule, proto.TRAIN)]
    excluded = [
        rule for rule in layer.exclude if rule.HasField("phase") and rule.phase == proto.TRAIN
    ]
    return bool(included or not layer.include) and not excluded


def _allows(rule: Message, phase: int) -> bool:
    return not rule.HasField("phase") or rule.phase == phase


def _reads_images(layer: Message) -> bool:
    kind = class_of(str(layer.type))
    reads = kind.reads_images and not kind.is_input
    return not layer.bottom and bool(reads or layer.HasField("transform_param"))
