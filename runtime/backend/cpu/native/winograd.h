// Shared by the Winograd kernels: the layout of transformed filters, and of planes in scratch
// memory.
#pragma once

#include "arena.h"
#include "winograd_tiles.h"

namespace verydeep::VD_ISA {

// A distance between planes that is never a multiple of 4 KiB: otherwise the stores of a tile, one
// to each plane, would all map to one set of the L1 cache.
VD_INLINE Index plane_stride(Index floats) { return round_up(floats, 1024) + 16; }

// Transformed filters with more floats do not stay in a cache until they are used.
constexpr Index kFarFloats = 1 << 22;

// Transformed filters: [plane][panel][input channel][kPanel output channels]. The last panel may
// have kLanes output channels.
struct FilterLayout {
    Index inputs, output_blocks, plane;

    FilterLayout(Index inputs, Index outputs)
        : inputs(inputs),
          output_blocks(ceil_div(outputs, kLanes)),
          plane(plane_stride(inputs * output_blocks * kLanes)) {}

    Index panels() const { return ceil_div(output_blocks, 2); }
    Index panel_vectors(Index panel) const { return least(2, output_blocks - 2 * panel); }
};

// The nine taps of kLanes filters: conversion between rows of taps and vectors over filters.
struct TapRows {
    alignas(64) float tap[kLanes][16];
};
VD_INLINE void taps_from_rows(const TapRows& rows, Vec* taps) {
    for (int first = 0; first + (kLanes > 9 ? 9 : kLanes) <= 9; first += kLanes) {
        Vec r[kLanes];
        for (int i = 0; i < kLanes; ++i) r[i] = load(rows.tap[i] + first);
        transpose(r);
        for (int i = 0; i < (kLanes > 9 ? 9 : kLanes); ++i) taps[first + i] = r[i];
    }
    if (kLanes < 9)
        for (int i = 0; i < kLanes; ++i) taps[8][i] = rows.tap[i][8];
}
VD_INLINE void taps_to_rows(const Vec* taps, TapRows& rows) {
    for (int first = 0; first + (kLanes > 9 ? 9 : kLanes) <= 9; first += kLanes) {
        Vec r[kLanes] = {};
        for (int i = 0; i < (kLanes > 9 ? 9 : kLanes); ++i) r[i] = taps[first + i];
        transpose(r);
        for (int i = 0; i < kLanes; ++i) store(rows.tap[i] + first, r[i]);
    }
    if (kLanes < 9)
        for (int i = 0; i < kLanes; ++i) rows.tap[i][8] = taps[8][i];
}

}  // namespace verydeep::VD_ISA
