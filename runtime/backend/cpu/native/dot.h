// Products of rows of two matrices that are contiguous along the sum: vectorised along the sum,
// without packing.
#pragma once

#include "vector.h"

namespace verydeep::VD_ISA {

constexpr int kDotRows = 4;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kDotCols = 6;
#elif defined(__AVX__)
constexpr int kDotCols = 3;
#else
constexpr int kDotCols = 2;
#endif

// out[i] = the sum of the lanes of v[i], i < Count, in a fixed order.
template <int Count>
VD_INLINE void sum_lanes_of(const Vec* v, float* out) {
    for (int first = 0; first < Count; first += kLanes) {
        Vec r[kLanes] = {};
        VD_UNROLL
        for (int i = 0; i < kLanes; ++i)
            if (first + i < Count) r[i] = v[first + i];
        transpose(r);
        VD_UNROLL
        for (int width = kLanes / 2; width > 0; width /= 2)
            for (int i = 0; i < width; ++i) r[i] += r[i + width];
        if (first + kLanes <= Count)
            store(out + first, r[0]);
        else
            store_part(out + first, r[0], Count - first);
    }
}

// out[r * Cols + c] = a[r] . b[c] over `depth` floats. The remainder of the depth is padded with
// zeros in both operands.
template <int Rows, int Cols>
void dot_block(const float* a, Index a_stride, const float* b, Index b_stride, Index depth,
               float* out) {
    Vec sum[Rows * Cols] = {};
    Index k = 0;
    for (; k + kLanes <= depth; k += kLanes) {
        Vec y[Cols];
        VD_UNROLL
        for (int c = 0; c < Cols; ++c) y[c] = load(b + c * b_stride + k);
        VD_UNROLL
        for (int r = 0; r < Rows; ++r) {
            const Vec x = load(a + r * a_stride + k);
            VD_UNROLL
            for (int c = 0; c < Cols; ++c) sum[r * Cols + c] += x * y[c];
        }
    }
    if (k < depth) {
        Vec y[Cols];
        for (int c = 0; c < Cols; ++c) y[c] = load_part(b + c * b_stride + k, depth - k);
        for (int r = 0; r < Rows; ++r) {
            const Vec x = load_part(a + r * a_stride + k, depth - k);
            for (int c = 0; c < Cols; ++c) sum[r * Cols + c] += x * y[c];
        }
    }
    sum_lanes_of<Rows * Cols>(sum, out);
}

using DotBlock = void (*)(const float*, Index, const float*, Index, Index, float*);
struct DotTable {
    DotBlock by_rows[kDotRows][kDotCols];
};
template <int R, int... C>
constexpr void fill_dot_row(DotTable& table, Lanes<C...>) {
    ((table.by_rows[R][C] = &dot_block<R + 1, C + 1>), ...);
}
template <int... R>
constexpr DotTable dot_table(Lanes<R...>) {
    DotTable table{};
    (fill_dot_row<R>(table, MakeLanes<kDotCols>::Type{}), ...);
    return table;
}
static constexpr DotTable kDot = dot_table(MakeLanes<kDotRows>::Type{});

// put(r, c, value) for a[r] . b[c], r < rows, c < cols.
template <class Put>
VD_INLINE void dot_all(const float* a, Index a_stride, Index rows, const float* b, Index b_stride,
                       Index cols, Index depth, const Put& put) {
    for (Index c = 0; c < cols; c += kDotCols) {
        const Index wide = least(kDotCols, cols - c);
        for (Index r = 0; r < rows; r += kDotRows) {
            const Index high = least(kDotRows, rows - r);
            float out[kDotRows * kDotCols];
            kDot.by_rows[high - 1][wide - 1](a + r * a_stride, a_stride, b + c * b_stride, b_stride,
                                             depth, out);
            for (Index i = 0; i < high; ++i)
                for (Index j = 0; j < wide; ++j) put(r + i, c + j, out[i * wide + j]);
        }
    }
}

}  // namespace verydeep::VD_ISA
