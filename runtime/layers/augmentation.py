"""The sidecar's data options laid over a prototxt's transform_param."""

from __future__ import annotations

import dataclasses

from data_prep.colour import ColourShift, read_pca
from data_prep.transform import TransformSpec
from prototxt_gen.sidecar import ColourPca, DataOptions
from runtime.backend.cpu.native_image import image_kernel
from runtime.core.context import RunContext


def with_options(spec: TransformSpec, options: DataOptions, context: RunContext) -> TransformSpec:
    """Add rescaling and colour shift. Paper: 3.1 (training image size, augmentation)."""
    side = options.short_side
    colour = None
    if options.colour_shift and options.pca is not None:
        colour = ColourShift(_pca(options.pca, context), options.colour_shift)
    return dataclasses.replace(
        spec,
        short_side=(side, side) if isinstance(side, int) else side,
        colour=colour if spec.train else None,
        kernel=image_kernel(),
    )


def _pca(given: str | ColourPca, context: RunContext) -> ColourPca:
    return read_pca(context.path(given)) if isinstance(given, str) else given
