"""Public Caffe models: how they are recognised, and the preprocessing that their authors published.

A model is recognised by the shapes of the weights of some layers, dimensions of 1 removed. Sources
of the values are the models' own pages, which `source` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.bundle.preprocessing import Preprocessing

Shape = tuple[int, ...]

ILSVRC_CLASSES = 1000
_VGG_PAGE = "https://www.robots.ox.ac.uk/~vgg/research/very_deep/"
_DEVIL_PAGE = "https://www.robots.ox.ac.uk/~vgg/research/deep_eval/"
_BVLC = "https://github.com/BVLC/caffe/tree/master/models"
_RESNET_PAGE = "https://github.com/KaimingHe/deep-residual-networks"
_PLACES_PAGE = "https://github.com/CSAILVision/places365"
_PLACES205_PAGE = "http://places.csail.mit.edu/downloadCNN.html"
_SQUEEZENET_PAGE = "https://github.com/DeepScale/SqueezeNet"
_DENSENET_PAGE = "https://github.com/shicai/DenseNet-Caffe"
_FACE_PAGE = "https://www.robots.ox.ac.uk/~vgg/software/vgg_face/"
_NOT_STATED = "see the source page"
_UNRESTRICTED = "unrestricted"
_CC_BY = "CC BY"
_NON_COMMERCIAL = "non-commercial use only"

_VGG_MEAN = (103.939, 116.779, 123.68)
_CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)
_ROUND_MEAN = (104.0, 117.0, 123.0)
_PLACES_MEAN = (104.051, 112.514, 116.676)

_VGG = Preprocessing((224, 224), short_side=256, mean_value=_VGG_MEAN)
_ALEX = Preprocessing((227, 227), warp=(256, 256), mean_value=_CAFFE_MEAN)
_WARPED = Preprocessing((224, 224), warp=(256, 256), mean_value=_ROUND_MEAN)
_SQUEEZE = Preprocessing((227, 227), warp=(256, 256), mean_value=_ROUND_MEAN)
_RESNET = Preprocessing(
    (224, 224), short_side=256, mean_value=(103.0626238, 115.90288257, 123.15163084)
)
_SCALED = Preprocessing(
    (224, 224), short_side=256, mean_value=(103.94, 116.78, 123.68), scale=0.017
)

_VGG16_LAYERS: dict[str, Shape] = {
    "conv1_1": (64, 3, 3, 3),
    "conv2_2": (128, 128, 3, 3),
    "conv3_3": (256, 256, 3, 3),
    "conv5_3": (512, 512, 3, 3),
    "fc6": (4096, 25088),
    "fc7": (4096, 4096),
}
_VGG19_LAYERS = _VGG16_LAYERS | {"conv3_4": (256, 256, 3, 3), "conv5_4": (512, 512, 3, 3)}
_ALEX_LAYERS: dict[str, Shape] = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
}
_GOOGLENET_LAYERS: dict[str, Shape] = {
    "conv1/7x7_s2": (64, 3, 7, 7),
    "inception_3a/1x1": (64, 192),
    "inception_5b/pool_proj": (128, 832),
}
_RESNET_LAYERS: dict[str, Shape] = {
    "conv1": (64, 3, 7, 7),
    "res2a_branch1": (256, 64),
    "res5c_branch2c": (2048, 512),
}
_DEVIL_LAYERS: dict[str, Shape] = {
    "conv1": (96, 3, 7, 7),
    "conv2": (256, 96, 5, 5),
    "conv3": (512, 256, 3, 3),
    "fc6": (4096, 18432),
}


@dataclass(frozen=True)
class KnownModel:
    """A public model."""

    name: str
    file: str
    """The name of its weights where it is published."""
    source: str
    licence: str
    preprocessing: Preprocessing
    layers: Mapping[str, Shape] = field(hash=False)
    """The shapes of the first blobs of some layers; the classifier is not among them."""
    classes: int = ILSVRC_CLASSES
    absent: tuple[str, ...] = ()
    """Layers of related models, which this model does not have."""
    sha1: str = ""
    """The published SHA-1 of the weights, if there is one."""
    note: str = ""


_MEAN_IMAGE = "published with a mean image; its mean pixel is used"
_VGG_MEAN_IMAGE = (
    "published with the mean image VGG_mean.binaryproto; give it by --mean for its own values"
)

KNOWN_MODELS: tuple[KnownModel, ...] = (
    KnownModel(
        "VGG_ILSVRC_16_layers",
        "VGG_ILSVRC_16_layers.caffemodel",
        _VGG_PAGE,
        _CC_BY,
        _VGG,
        _VGG16_LAYERS,
        absent=("conv3_4",),
    ),
    KnownModel(
        "VGG_ILSVRC_19_layers",
        "VGG_ILSVRC_19_layers.caffemodel",
        _VGG_PAGE,
        _CC_BY,
        _VGG,
        _VGG19_LAYERS,
    ),
    KnownModel(
        "VGG_CNN_F",
        "VGG_CNN_F.caffemodel",
        _DEVIL_PAGE,
        _NON_COMMERCIAL,
        _VGG,
        {"conv1": (64, 3, 11, 11), "conv2": (256, 64, 5, 5), "fc6": (4096, 9216)},
        note=_VGG_MEAN_IMAGE,
    ),
    *(
        KnownModel(
            name,
            f"{name}.caffemodel",
            _DEVIL_PAGE,
            _NON_COMMERCIAL,
            _VGG,
            _DEVIL_LAYERS | {"fc7": (width, 4096)},
            note=_VGG_MEAN_IMAGE,
        )
        for name, width in (
            ("VGG_CNN_M", 4096),
            ("VGG_CNN_S", 4096),
            ("VGG_CNN_M_2048", 2048),
            ("VGG_CNN_M_1024", 1024),
            ("VGG_CNN_M_128", 128),
        )
    ),
    KnownModel(
        "VGG_FACE",
        "VGG_FACE.caffemodel",
        _FACE_PAGE,
        _NON_COMMERCIAL,
        Preprocessing((224, 224), short_side=224, mean_value=(93.594, 104.7624, 129.1863)),
        _VGG16_LAYERS,
        2622,
        absent=("conv3_4",),
    ),
    KnownModel(
        "CaffeNet",
        "bvlc_reference_caffenet.caffemodel",
        f"{_BVLC}/bvlc_reference_caffenet",
        _UNRESTRICTED,
        _ALEX,
        _ALEX_LAYERS,
        sha1="4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46",
        note=_MEAN_IMAGE,
    ),
    KnownModel(
        "AlexNet",
        "bvlc_alexnet.caffemodel",
        f"{_BVLC}/bvlc_alexnet",
        _UNRESTRICTED,
        _ALEX,
        _ALEX_LAYERS,
        sha1="9116a64c0fbe4459d18f4bb6b56d647b63920377",
        note=_MEAN_IMAGE,
    ),
    KnownModel(
        "R-CNN-ilsvrc13",
        "bvlc_reference_rcnn_ilsvrc13.caffemodel",
        f"{_BVLC}/bvlc_reference_rcnn_ilsvrc13",
        _UNRESTRICTED,
        _ALEX,
        _ALEX_LAYERS,
        200,
        sha1="bdd8abb885819cba5e2fe1eb36235f2319477e64",
        note=_MEAN_IMAGE,
    ),
    KnownModel(
        "FlickrStyleCaffeNet",
        "finetune_flickr_style.caffemodel",
        f"{_BVLC}/finetune_flickr_style",
        _NON_COMMERCIAL,
        _ALEX,
        _ALEX_LAYERS,
        20,
        sha1="b61b5cef7d771b53b0c488e78d35ccadc073e9cf",
        note=_MEAN_IMAGE,
    ),
    KnownModel(
        "GoogleNet",
        "bvlc_googlenet.caffemodel",
        f"{_BVLC}/bvlc_googlenet",
        _UNRESTRICTED,
        _WARPED,
        _GOOGLENET_LAYERS,
        sha1="405fc5acd08a3bb12de8ee5e23a96bec22f08204",
    ),
    KnownModel(
        "ResNet-50",
        "ResNet-50-model.caffemodel",
        _RESNET_PAGE,
        "MIT",
        _RESNET,
        _RESNET_LAYERS | {"res4f_branch2c": (1024, 256)},
        note="published with the mean image ResNet_mean.binaryproto; its mean pixel is used",
    ),
    KnownModel(
        "ResNet-101",
        "ResNet-101-model.caffemodel",
        _RESNET_PAGE,
        "MIT",
        _RESNET,
        _RESNET_LAYERS | {"res4b22_branch2c": (1024, 256)},
        absent=("res4b35_branch2c",),
        note="published with the mean image ResNet_mean.binaryproto; its mean pixel is used",
    ),
    KnownModel(
        "ResNet-152",
        "ResNet-152-model.caffemodel",
        _RESNET_PAGE,
        "MIT",
        _RESNET,
        _RESNET_LAYERS | {"res4b35_branch2c": (1024, 256)},
        note="published with the mean image ResNet_mean.binaryproto; its mean pixel is used",
    ),
    *(
        KnownModel(
            f"SqueezeNet_v{version}",
            f"squeezenet_v{version}.caffemodel",
            _SQUEEZENET_PAGE,
            "BSD",
            _SQUEEZE,
            {
                "conv1": (width, 3, kernel, kernel),
                "fire2/squeeze1x1": (16, width),
                "fire9/expand3x3": (256, 64, 3, 3),
            },
        )
        for version, width, kernel in (("1.0", 96, 7), ("1.1", 64, 3))
    ),
    KnownModel(
        "DenseNet-121",
        "DenseNet_121.caffemodel",
        _DENSENET_PAGE,
        _NOT_STATED,
        _SCALED,
        {"conv1": (64, 3, 7, 7), "conv2_1/x1": (128, 64), "conv5_16/x2": (32, 128, 3, 3)},
    ),
    KnownModel(
        "places205CNN",
        "places205CNN_iter_300000.caffemodel",
        _PLACES205_PAGE,
        _CC_BY,
        _ALEX,
        _ALEX_LAYERS,
        205,
        note="published with a mean image of its own; give it by --mean for its values",
    ),
    KnownModel(
        "hybridCNN",
        "hybridCNN_iter_700000.caffemodel",
        _PLACES205_PAGE,
        _CC_BY,
        _ALEX,
        _ALEX_LAYERS,
        1183,
        note="published with a mean image of its own; give it by --mean for its values",
    ),
    KnownModel(
        "alexnet_places365",
        "alexnet_places365.caffemodel",
        _PLACES_PAGE,
        _CC_BY,
        Preprocessing((227, 227), warp=(256, 256), mean_value=_PLACES_MEAN),
        _ALEX_LAYERS,
        365,
    ),
    KnownModel(
        "googlenet_places365",
        "googlenet_places365.caffemodel",
        _PLACES_PAGE,
        _CC_BY,
        Preprocessing((224, 224), warp=(256, 256), mean_value=_PLACES_MEAN),
        _GOOGLENET_LAYERS,
        365,
    ),
    KnownModel(
        "vgg16_places365",
        "vgg16_places365.caffemodel",
        _PLACES_PAGE,
        _CC_BY,
        Preprocessing((224, 224), warp=(256, 256), mean_value=_PLACES_MEAN),
        _VGG16_LAYERS,
        365,
        absent=("conv3_4",),
    ),
    KnownModel(
        "vgg16_hybrid1365",
        "vgg16_hybrid1365.caffemodel",
        _PLACES_PAGE,
        _CC_BY,
        Preprocessing((224, 224), warp=(256, 256), mean_value=_PLACES_MEAN),
        _VGG16_LAYERS,
        1365,
        absent=("conv3_4",),
    ),
)
