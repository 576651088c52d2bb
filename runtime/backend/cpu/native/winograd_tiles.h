// Conversion between NCHW planes and tiles of channel vectors: gather, transform and scatter of a
// strip.
//
// A strip is a run of tiles in one tile row of one image. kLanes channels are transposed in
// registers, so that transforms work on vectors whose lanes are channels.
#pragma once

#include "winograd_transform.h"

namespace verydeep::VD_ISA {

constexpr Index kMaxStrip = 64;  // tiles; limits the workspace for very wide images

struct Strip {
    Index image, row, column, tiles;  // row, column: of the first tile, in tiles
};

struct Tiling {
    Index rows, columns;   // tiles of one image
    Index segments, span;  // strips per tile row; maximum tiles per strip
    Index strips;          // total over all images

    Tiling(Index images, Index height, Index width, Index m)
        : rows(ceil_div(height, m)),
          columns(ceil_div(width, m)),
          segments(ceil_div(columns, kMaxStrip)),
          span(ceil_div(columns, segments)),
          strips(images * rows * segments) {}

    Strip strip(Index i) const {
        Index column = i % segments * span, row = i / segments % rows;
        return {i / segments / rows, row, column, most(0, least(span, columns - column))};
    }
    Index tiles(Index first, Index last) const {
        Index sum = 0;
        for (Index i = first; i < last; ++i) sum += strip(i).tiles;
        return sum;
    }
};

// Up to kLanes planes of one image. `end` is the end of the array: vectors may be read beyond a
// row, but not beyond the array.
struct Planes {
    const float* data;
    const float* end;
    Index count, height, width;
};

VD_INLINE Planes planes_at(const float* x, Index images, Index channels, Index height, Index width,
                           Index image, Index block) {
    const Index size = height * width, first = block * kLanes;
    return {x + (image * channels + first) * size, x + images * channels * size,
            least(kLanes, channels - first), height, width};
}

// Vectors of the rows of one strip, with kLanes more because full vectors are stored.
VD_INLINE Index strip_stride(Index columns) { return columns + kLanes; }

// Columns [first, first + count) of one row of up to kLanes planes, transposed to channel vectors.
template <bool Full>
VD_INLINE void gather_row(const Planes& x, Index y, Index first, Index count, Vec* line) {
    const Index lo = least(most(0, first), first + count), hi = most(lo, least(x.width, first + count));
    const Index size = x.height * x.width;
    for (Index i = 0; i < lo - first; ++i) line[i] = Vec{};
    for (Index column = lo; column < hi; column += kLanes) {
        const float* p = x.data + y * x.width + column;
        Vec r[kLanes];
        if (Full && x.end - (p + (kLanes - 1) * size) >= kLanes) {
            VD_UNROLL
            for (int c = 0; c < kLanes; ++c) r[c] = load(p + c * size);
        } else {
            for (int c = 0; c < kLanes; ++c)
                r[c] = c < x.count ? load_within(p + c * size, x.end) : Vec{};
        }
        transpose(r);
        VD_UNROLL
        for (int c = 0; c < kLanes; ++c) line[column - first + c] = r[c];
    }
    for (Index i = hi - first; i < count; ++i) line[i] = Vec{};
}

VD_INLINE void gather(const Planes& x, Index top, Index rows, Index left, Index columns, Vec* out) {
    const Index stride = strip_stride(columns);
    for (Index i = 0; i < rows; ++i) {
        Vec* line = out + i * stride;
        if (top + i < 0 || top + i >= x.height)
            for (Index j = 0; j < columns; ++j) line[j] = Vec{};
        else if (x.count == kLanes)
            gather_row<true>(x, top + i, left, columns, line);
        else
            gather_row<false>(x, top + i, left, columns, line);
    }
}

// Tile rows [first, last) of B^T d B for each tile of a strip.
// Shapes: planes[kPlanes] of [tile][lane], `plane` floats apart.
template <int M>
VD_INLINE void input_strip(const Planes& x, const Strip& s, Index pad_h, Index pad_w, Index first,
                           Index last, Vec* rows, float* planes, Index plane) {
    using W = Winograd<M>;
    const Index columns = s.tiles * M + 2, stride = strip_stride(columns);
    gather(x, s.row * M - pad_h, W::kTile, s.column * M - pad_w, columns, rows);
    for (Index j = 0; j < columns; ++j) W::input(rows + j, stride, rows + j, stride);
    for (Index t = 0; t < s.tiles; ++t)
        for (Index i = first; i < last; ++i) {
            Vec o[W::kTile];
            W::input(rows + i * stride + t * M, 1, o, 1);
            for (int j = 0; j < W::kTile; ++j)
                store(planes + (i * W::kTile + j) * plane + t * kLanes, o[j]);
        }
}

// Tile rows [first, last) of A dy A^T, the transform of the gradient of the outputs.
template <int M>
VD_INLINE void gradient_strip(const Planes& dy, const Strip& s, Index first, Index last, Vec* rows,
                              float* planes, Index plane) {
    using W = Winograd<M>;
    const Index columns = s.tiles * M, stride = strip_stride(columns);
    gather(dy, s.row * M, M, s.column * M, columns, rows);
    for (Index j = 0; j < columns; ++j) W::gradient(rows + j, stride, rows + j, stride);
    for (Index t = 0; t < s.tiles; ++t)
        for (Index i = first; i < last; ++i) {
            Vec o[W::kTile];
            W::gradient(rows + i * stride + t * M, 1, o, 1);
            for (int j = 0; j < W::kTile; ++j)
                store(planes + (i * W::kTile + j) * plane + t * kLanes, o[j]);
        }
}

struct Target {  // up to kLanes output planes
    float* data;
    Index count, height, width;
    Vec bias;
    bool relu;
};

VD_INLINE void scatter_row(const Target& y, const Vec* line, Index row, Index left, Index count) {
    const Index size = y.height * y.width;
    for (Index column = 0; column < count; column += kLanes) {
        Vec r[kLanes];
        VD_UNROLL
        for (int c = 0; c < kLanes; ++c) r[c] = line[column + c];
        transpose(r);
        float* p = y.data + row * y.width + left + column;
        if (count - column >= kLanes && y.count == kLanes) {
            VD_UNROLL
            for (int c = 0; c < kLanes; ++c) store(p + c * size, r[c]);
        } else {
            alignas(64) Vec kept[kLanes];
            for (int c = 0; c < kLanes; ++c) kept[c] = r[c];
            for (int c = 0; c < y.count; ++c) {
                if (count - column >= kLanes)
                    store(p + c * size, kept[c]);
                else
                    store_part(p + c * size, kept[c], count - column);
            }
        }
    }
}

// A^T m A for each tile of a strip, with bias and ReLU, stored in the rows of the output planes.
template <int M>
VD_INLINE void output_strip(const float* planes, Index plane, const Strip& s, const Target& y,
                            Vec* rows) {
    using W = Winograd<M>;
    const Index stride = strip_stride(s.tiles * M);
    for (Index t = 0; t < s.tiles; ++t) {
        Vec half[M * W::kTile];
        for (int j = 0; j < W::kTile; ++j) {
            Vec d[W::kTile];
            for (int i = 0; i < W::kTile; ++i)
                d[i] = load(planes + (i * W::kTile + j) * plane + t * kLanes);
            W::output(d, 1, half + j, W::kTile);
        }
        for (int i = 0; i < M; ++i) {
            Vec o[M];
            W::output(half + i * W::kTile, 1, o, 1);
            for (int j = 0; j < M; ++j) {
                Vec v = o[j] + y.bias;
                rows[i * stride + t * M + j] = y.relu ? (v < Vec{} ? Vec{} : v) : v;
            }
        }
    }
    const Index left = s.column * M, count = least(s.tiles * M, y.width - left);
    for (Index i = 0; i < M && s.row * M + i < y.height; ++i)
        scatter_row(y, rows + i * stride, s.row * M + i, left, count);
}

}  // namespace verydeep::VD_ISA
