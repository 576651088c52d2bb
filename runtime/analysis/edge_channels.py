"""The channels of the blobs of a net, inferred from its prototxt."""

from __future__ import annotations

from prototxt_gen.errors import VerydeepError
from prototxt_gen.proto import TEST, TRAIN, Message
from runtime.backend.registry import create_backend
from runtime.layers.factory import class_of
from runtime.net.shape_net import Shape, is_source, shape_net

PhaseChannels = dict[tuple[str, str], int]

_SIDE = 224


def blob_channels(param: Message, phase: int | None) -> dict[int, PhaseChannels]:
    """The channels of the tops of a net in a phase, or in both, if they are determined.

    No data is read: images of two shapes are assumed, and what depends on them is omitted. A phase
    in which the net cannot be built has no channels.

    Returns:
        By phase, and then by the names of a layer and of its top. See prototxt_gen.draw.Channels.
    """
    phases = (TRAIN, TEST) if phase is None else (phase,)
    return {one_phase: _phase_channels(param, one_phase) for one_phase in phases}


def _phase_channels(param: Message, phase: int) -> PhaseChannels:
    images = _images(param)
    if not images:
        return _channels(param, phase, None)
    first, second = (_channels(param, phase, image) for image in images)
    return {key: value for key, value in first.items() if second.get(key) == value}


def _images(param: Message) -> list[Shape]:
    """Two shapes of images for the data layers whose prototxt has none; none if there are none."""
    try:
        unknown = [
            layer
            for layer in filter(is_source, param.layer)
            if class_of(layer.type).reads_images and class_of(layer.type).batch_param
        ]
    except VerydeepError:
        return []
    if not unknown:
        return []
    side = max(layer.transform_param.crop_size for layer in unknown)
    return [(3, side or _SIDE, side or _SIDE), (4, side or _SIDE + 64, side or _SIDE + 64)]


def _channels(param: Message, phase: int, image: Shape | None) -> PhaseChannels:
    try:
        with shape_net(param, phase, create_backend("cpu"), image=image) as net:
            determined = {
                (str(layer.param.name), str(name)): blob.shape[1]
                for layer, tops in zip(net.layers, net.tops)
                for name, blob in zip(layer.param.top, tops)
                if blob.num_axes > 1
            }
    except VerydeepError:
        return {}
    written = {(layer.name, name) for layer in param.layer for name in layer.top}
    return {key: count for key, count in determined.items() if key in written}
