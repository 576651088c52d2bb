// What the Winograd kernels share: the layout of transformed filters, and of planes in scratch.
#pragma once

#include "winograd_tiles.h"

namespace verydeep::VD_ISA {

// A distance between planes that is never a multiple of 4 KiB: otherwise the stores of one tile,
// one to each plane, would all fall into one set of the first-level cache.
VD_INLINE Index plane_stride(Index floats) { return round_up(floats, 1024) + 16; }

// Transformed filters: [plane][panel][input channel][kPanel output channels]. The last panel has
// kLanes output channels where that is enough.
struct FilterLayout {
    Index inputs, output_blocks, plane;

    FilterLayout(Index inputs, Index outputs)
        : inputs(inputs),
          output_blocks(ceil_div(outputs, kLanes)),
          plane(plane_stride(inputs * output_blocks * kLanes)) {}

    Index panels() const { return ceil_div(output_blocks, 2); }
    Index panel_vectors(Index panel) const { return least(2, output_blocks - 2 * panel); }
};

}  // namespace verydeep::VD_ISA
