"""What Caffe's data layers take from the one random stream, so that later fillers agree."""

from __future__ import annotations

from prototxt_gen import proto
from runtime.core.layer import Layer


def take_transformer_seed(layer: Layer) -> None:
    """Take the seed of a layer's transformer, where that draws. Caffe: DataTransformer::InitRand.

    The seed itself is not used: crops and flips are drawn per sample number.
    """
    transform = layer.param.transform_param
    if transform.mirror or (layer.phase == proto.TRAIN and transform.crop_size):
        layer.context.rng.raw()


def take_thread_seed(layer: Layer) -> None:
    """Take what a reading thread takes as it starts. Caffe: BasePrefetchingDataLayer::LayerSetUp.

    The transformer is seeded a second time just before.
    """
    take_transformer_seed(layer)
    layer.context.rng.raw()
