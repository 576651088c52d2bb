// im2col in runs: the source positions of a convolution as affine coordinates.
#pragma once

#include "shapes.h"
#include "vector.h"

namespace verydeep::VD_ISA {

// One spatial axis: output `o` at tap `j` reads source coordinate o * step + base + j * slope.
struct Axis {
    Index size, step, base, slope, taps;
};

VD_INLINE Axis forward_axis(Index size, Index pad, Index stride, Index dilation, Index taps) {
    return {size, stride, -pad, dilation, taps};
}

// Copy `count` values at source coordinates x, x + step, ...; zeros outside [0, size).
VD_INLINE void copy_run(const float* line, Index size, Index x, Index step, Index count, float* to) {
    const Index lo = least(count, ceil_div(most(0, -x), step));
    const Index hi = most(lo, least(count, ceil_div(most(0, size - x), step)));
    Index i = 0;
    for (; i < lo; ++i) to[i] = 0.f;
    if (step == 1) {
        for (; i + kLanes <= hi; i += kLanes) store(to + i, load(line + x + i));
    } else if (step == 2) {
        // The last load also reads the element after the last value.
        for (; i + kLanes <= hi && x + 2 * (i + kLanes) <= size; i += kLanes) {
            const float* from = line + x + 2 * i;
            store(to + i, shuffle<Even>(load(from), load(from + kLanes)));
        }
    }
    for (; i < hi; ++i) to[i] = line[x + i * step];
    for (; i < count; ++i) to[i] = 0.f;
}

// The rows of the column matrix. Its columns are the outputs (n, p, q) of all images; its rows are
// (channel of the group, vertical tap, horizontal tap).
struct Gather {
    const float* x;
    Index channels, group_channels;  // total; in one group
    Axis down, across;
    Index out_height, out_width;

    Index columns_of_image() const { return out_height * out_width; }
    Index depth() const { return group_channels * down.taps * across.taps; }

    // The same, where 1x1 filters read all of a plane: as one long row.
    Gather with_long_rows() const {
        Gather flat = *this;
        if (down.taps == 1 && across.taps == 1 && down.step == 1 && across.step == 1 &&
            down.base == 0 && across.base == 0 && out_height == down.size &&
            out_width == across.size) {
            flat.across.size = flat.out_width = down.size * across.size;
            flat.down.size = flat.out_height = 1;
        }
        return flat;
    }
};

struct Run {  // consecutive outputs in one row of one image
    Index offset, count, image, row, col;
};

// Divide columns [first, first + count) into runs of at most one output row each.
struct Runs {
    Index count = 0;
    Run list[kPanel];

    Runs(const Gather& g, Index first, Index columns) {
        const Index size = g.columns_of_image();
        for (Index offset = 0; offset < columns;) {
            const Index pixel = (first + offset) % size, col = pixel % g.out_width;
            const Index length = least(columns - offset, g.out_width - col);
            list[count++] = {offset, length, (first + offset) / size, pixel / g.out_width, col};
            offset += length;
        }
    }
};

struct TapIndex {
    Index channel, down, across;

    TapIndex() = default;
    TapIndex(Index channel, Index down, Index across)
        : channel(channel), down(down), across(across) {}
    TapIndex(const Gather& g, Index k)
        : channel(k / (g.down.taps * g.across.taps)),
          down(k / g.across.taps % g.down.taps),
          across(k % g.across.taps) {}
    void next(const Gather& g) {
        if (++across < g.across.taps) return;
        across = 0;
        if (++down < g.down.taps) return;
        down = 0;
        ++channel;
    }
};

VD_INLINE void gather_run(const Gather& g, Index group, const TapIndex& tap, const Run& run,
                          float* to) {
    const Index y = run.row * g.down.step + g.down.base + tap.down * g.down.slope;
    if (y < 0 || y >= g.down.size) {
        for (Index i = 0; i < run.count; ++i) to[i] = 0.f;
        return;
    }
    const Index plane = run.image * g.channels + group * g.group_channels + tap.channel;
    copy_run(g.x + (plane * g.down.size + y) * g.across.size, g.across.size,
             run.col * g.across.step + g.across.base + tap.across * g.across.slope, g.across.step,
             run.count, to);
}

// Rows [k, k + depth) of at most kPanel columns. Shapes: out [depth][kPanel].
VD_INLINE void gather_panel(const Gather& g, Index group, Index col, Index cols, Index k,
                            Index depth, float* out) {
    const Runs runs(g, col, cols);
    TapIndex tap(g, k);
    for (Index i = 0; i < depth; ++i, tap.next(g), out += kPanel) {
        for (Index r = 0; r < runs.count; ++r)
            gather_run(g, group, tap, runs.list[r], out + runs.list[r].offset);
        for (Index j = cols; j < kPanel; ++j) out[j] = 0.f;
    }
}

}  // namespace verydeep::VD_ISA
