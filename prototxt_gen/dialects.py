"""Which layer types and fields each dialect of Caffe has beyond BVLC Caffe 1.0.

To add a type or field, add its name to the dialects that have it. Fields that the schema has in
addition to BVLC's have numbers from FIRST_NUMBER on; each of them is in this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prototxt_gen.proto import Message, is_repeated

FIRST_NUMBER = 5000
"""The lowest number of a field that BVLC's schema lacks; no public build of Caffe uses it."""


@dataclass(frozen=True)
class Dialect:
    """The additions of a family of builds; fields are named `Message.field`."""

    title: str
    types: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BVLC = "bvlc"

BVLC_TYPES = _names(
    "AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss "
    "Convolution Crop Data Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp "
    "Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct "
    "Input Log LRN LSTM LSTMUnit MemoryData MultinomialLogisticLoss MVN Parameter Pooling Power "
    "PReLU Python Reduction ReLU Reshape RNN Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice "
    "Softmax SoftmaxWithLoss Split SPP Swish TanH Threshold Tile WindowData"
)

_SSD_TYPES = _names(
    "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute "
    "PriorBox SmoothL1Loss VideoData"
)

_SSD_FIELDS = _names(
    "LayerParameter.annotated_data_param LayerParameter.detection_evaluate_param "
    "LayerParameter.detection_output_param LayerParameter.multibox_loss_param "
    "LayerParameter.norm_param LayerParameter.permute_param LayerParameter.prior_box_param "
    "LayerParameter.video_data_param TransformationParameter.resize_param "
    "TransformationParameter.noise_param TransformationParameter.distort_param "
    "TransformationParameter.expand_param TransformationParameter.emit_constraint "
    "TransformationParameter.crop_h TransformationParameter.crop_w "
    "SolverParameter.eval_type SolverParameter.ap_version "
    "SolverParameter.show_per_class_result SolverParameter.plateau_winsize"
)

DIALECTS: dict[str, Dialect] = {
    BVLC: Dialect("BVLC Caffe"),
    "ssd": Dialect("SSD", _SSD_TYPES, _SSD_FIELDS),
    "rcnn": Dialect(
        "Fast R-CNN",
        _names("Proposal ROIAlign ROIPooling SmoothL1Loss"),
        _names(
            "LayerParameter.proposal_param LayerParameter.roi_align_param "
            "LayerParameter.roi_pooling_param LayerParameter.smooth_l1_loss_param"
        ),
    ),
    "rfcn": Dialect(
        "R-FCN",
        _names(
            "BoxAnnotatorOHEM PSROIAlign PSROIPooling ROIPooling SmoothL1Loss SmoothL1LossOHEM "
            "SoftmaxWithLossOHEM"
        ),
        _names(
            "LayerParameter.box_annotator_ohem_param LayerParameter.psroi_align_param "
            "LayerParameter.psroi_pooling_param LayerParameter.roi_pooling_param "
            "LayerParameter.smooth_l1_loss_param"
        ),
    ),
    "segnet": Dialect(
        "SegNet",
        _names("BN DenseImageData Upsample"),
        _names(
            "LayerParameter.bn_param LayerParameter.dense_image_data_param "
            "LayerParameter.upsample_param LossParameter.weight_by_label_freqs "
            "LossParameter.class_weighting DropoutParameter.sample_weights_test"
        ),
    ),
    "pspnet": Dialect(
        "DeepLab/PSPNet",
        _names("BN BatchReduction ImageSegData Interp MatRead MatWrite SegAccuracy"),
        _names(
            "LayerParameter.bn_param LayerParameter.interp_param LayerParameter.seg_accuracy_param "
            "LayerParameter.mat_read_param LayerParameter.mat_write_param "
            "LayerParameter.batch_reduction_param ImageDataParameter.label_type"
        ),
    ),
    "senet": Dialect(
        "SENet",
        _names("Axpy"),
        _names("PoolingParameter.ceil_mode"),
    ),
    "mobilenet": Dialect(
        "MobileNet/ShuffleNet",
        _names("ConvolutionDepthwise DepthwiseConvolution ReLU6 ShuffleChannel"),
        _names("LayerParameter.shuffle_channel_param"),
    ),
    "face": Dialect(
        "face recognition nets",
        _names(
            "CenterLoss CropCenter Flip LabelSpecificAdd LabelSpecificMargin MarginInnerProduct "
            "NormalizeLayer"
        ),
        _names(
            "LayerParameter.center_loss_param LayerParameter.crop_center_param "
            "LayerParameter.flip_param LayerParameter.label_specific_add_param "
            "LayerParameter.label_specific_margin_param LayerParameter.margin_inner_product_param"
        ),
    ),
    "yolo": Dialect(
        "YOLO ports",
        _names("Region RegionLoss Reorg Yolo Yolov3DetectionOutput YoloDetectionOutput"),
        _names(
            "LayerParameter.region_param LayerParameter.reorg_param "
            "LayerParameter.yolo_detection_output_param "
            "LayerParameter.yolov3_detection_output_param"
        ),
    ),
    "nvidia": Dialect(
        "NVIDIA Caffe",
        _SSD_TYPES | _names("Axpy DetectNetTransformation L1Loss"),
        _SSD_FIELDS
        | _names(
            "NetParameter.default_forward_type NetParameter.default_backward_type "
            "NetParameter.default_forward_math NetParameter.default_backward_math "
            "NetParameter.global_grad_scale NetParameter.global_grad_scale_adaptive "
            "NetParameter.reduce_buckets NetParameter.eltwise_mem_sharing "
            "NetParameter.default_conv_algos_override "
            "LayerParameter.forward_type LayerParameter.backward_type "
            "LayerParameter.forward_math LayerParameter.backward_math "
            "LayerParameter.detectnet_groundtruth_param "
            "LayerParameter.detectnet_augmentation_param "
            "BatchNormParameter.scale_bias BatchNormParameter.engine "
            "ConvolutionParameter.cudnn_convolution_algo_seeker DataParameter.cache "
            "DataParameter.shuffle DataParameter.threads DataParameter.parser_threads "
            "SolverParameter.larc SolverParameter.larc_policy SolverParameter.larc_turbo "
            "SolverParameter.rampup_interval SolverParameter.rampup_lr SolverParameter.min_lr"
        ),
    ),
    "intel": Dialect(
        "Intel Caffe",
        _SSD_TYPES
        | _names(
            "Axpy BoxAnnotatorOHEM MnActivation MnParamGradCompress ROIPooling SpatialDropout"
        ),
        _SSD_FIELDS
        | _names(
            "NetParameter.engine NetParameter.bn_stats_batch_size NetParameter.compile_net_state "
            "LayerParameter.engine LayerParameter.quantization_param LayerParameter.multinode "
            "DataParameter.shuffle ReLUParameter.fuse ConvolutionParameter.relu "
            "SolverParameter.local_lr_auto SolverParameter.warmup_iter "
            "SolverParameter.warmup_start_lr SolverParameter.stagelr SolverParameter.stageiter"
        ),
    ),
    "c3d": Dialect(
        "C3D",
        _names("Convolution3D Deconvolution3D Pooling3D VideoData VolumeData"),
        _names("LayerParameter.image_data_param_3d ConvolutionParameter.kernel_depth"),
    ),
}


def dialects_of_type(layer_type: str) -> list[str]:
    """The dialects that have a layer type; all of them where BVLC Caffe has it."""
    if layer_type in BVLC_TYPES:
        return list(DIALECTS)
    return [name for name, dialect in DIALECTS.items() if layer_type in dialect.types]


def dialects_of_field(message: str, name: str) -> list[str]:
    """The dialects that added a field to a message of BVLC's schema."""
    key = f"{message}.{name}"
    return [dialect for dialect, entry in DIALECTS.items() if key in entry.fields]


def origin(layer_type: str) -> list[str]:
    """The dialects that a type comes from: BVLC Caffe alone where it has it."""
    return [BVLC] if layer_type in BVLC_TYPES else dialects_of_type(layer_type)


def titles(names: list[str]) -> str:
    """The names of dialects as a sentence has them."""
    words = [DIALECTS[name].title for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def refusals(message: Message, dialect: str) -> list[str]:
    """What a dialect's Caffe would refuse in a net or solver, one sentence each.

    BVLC Caffe 1.0 is taken as the base of every dialect, whose builds may be older.
    """
    return list(dict.fromkeys(_refusals(message, dialect, "")))


def _refusals(message: Message, dialect: str, label: str) -> Iterator[str]:
    name = message.DESCRIPTOR.name
    if name == "LayerParameter":
        label = f"layer '{message.name}' ({message.type}): "
        dialects = dialects_of_type(message.type)
        if dialect not in dialects:
            yield f"{label}the layer type is unknown; {_origin(dialects)}"
    for entry, value in message.ListFields():
        if entry.number >= FIRST_NUMBER:
            dialects = dialects_of_field(name, entry.name)
            if dialect not in dialects:
                yield f"{label}{name} has no field {entry.name!r}; {_origin(dialects)}"
                continue
        if entry.message_type is not None:
            for child in value if is_repeated(entry) else [value]:
                yield from _refusals(child, dialect, label)


def _origin(names: list[str]) -> str:
    return f"it belongs to {titles(names)}" if names else "no dialect in the table has it"
