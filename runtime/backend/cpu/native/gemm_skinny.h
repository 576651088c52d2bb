// Products with a small batch: one operand is a large matrix, which is read or updated once.
//
// An InnerProduct layer of VGG has 4096 x 25088 weights; at batch 1 to 32, packing them would cost
// more than the product, which is limited by memory bandwidth.
#pragma once

#include "dot.h"
#include "team.h"

namespace verydeep::VD_ISA {

struct GemmOperands {
    bool trans_a, trans_b;
    Index rows, cols, depth;
    float alpha, beta;
    const float* a;
    const float* b;
    float* c;
};

constexpr Index kSkinny = 32;  // the largest batch for these products

// y = x weight^T, weight (cols, depth): products of rows of the weights with rows of x.
static void skinny_forward(Team* team, const GemmOperands& op) {
    constexpr Index kColumns = 2 * kDotCols;
    constexpr Index kNear = 1 << 15;  // floats of the rows of x, in one part of the depth
    const Index stretches = most(1, ceil_div(op.depth, kNear / most(16, op.rows)));
    const Index stretch = round_up(ceil_div(op.depth, stretches), kLanes);
    parallel(team, ceil_div(op.cols, kColumns), [&](Index item, int) {
        const Index first = item * kColumns, cols = least(kColumns, op.cols - first);
        for (Index k = 0; k < op.depth; k += stretch) {
            const float beta = k == 0 ? op.beta : 1.f;
            dot_all(op.a + k, op.depth, op.rows, op.b + first * op.depth + k, op.depth, cols,
                    least(stretch, op.depth - k), [&](Index r, Index c, float value) {
                        float* to = op.c + r * op.cols + first + c;
                        *to = op.alpha * value + (beta == 0.f ? 0.f : beta * *to);
                    });
        }
    });
}

constexpr int kDeep = 8;  // rows of the weights per step of dx

// Rows of c += kDeep rows of b, weighted by x, over Vectors vectors from column `j` of the strip.
template <int Rows, int Vectors>
VD_INLINE void add_block(const float (*x)[kDeep], const float* const* b, float* c, Index cols) {
    Vec sum[Rows][Vectors];
    VD_UNROLL
    for (int r = 0; r < Rows; ++r)
        for (int e = 0; e < Vectors; ++e) sum[r][e] = load(c + r * cols + e * kLanes);
    VD_UNROLL
    for (int i = 0; i < kDeep; ++i) {
        Vec y[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) y[e] = load(b[i] + e * kLanes);
        VD_UNROLL
        for (int r = 0; r < Rows; ++r) {
            const Vec weight = broadcast(x[r][i]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) sum[r][e] += weight * y[e];
        }
    }
    VD_UNROLL
    for (int r = 0; r < Rows; ++r)
        for (int e = 0; e < Vectors; ++e) store(c + r * cols + e * kLanes, sum[r][e]);
}

// Rows of c += up to kDeep columns of a times as many rows of b, over a strip.
template <int Rows>
void add_rows(const GemmOperands& op, Index row, Index k, Index depth, Index first, Index cols) {
    float x[Rows][kDeep] = {};
    const float* b[kDeep];
    for (int i = 0; i < kDeep; ++i) {
        b[i] = op.b + (k + least(i, depth - 1)) * op.cols + first;
        for (int r = 0; r < Rows; ++r)
            if (i < depth) x[r][i] = op.alpha * op.a[(row + r) * op.depth + k + i];
    }
    float* c = op.c + row * op.cols + first;
    auto ahead = [&](Index count) {
        for (const float*& from : b) from += count;
        c += count;
    };
    constexpr int kWide = kLanes < 16 ? 1 : 2;
    Index j = 0;
    for (; j + kWide * kLanes <= cols; j += kWide * kLanes, ahead(kWide * kLanes))
        add_block<Rows, kWide>(x, b, c, op.cols);
    for (; j + kLanes <= cols; j += kLanes, ahead(kLanes)) add_block<Rows, 1>(x, b, c, op.cols);
    for (; j < cols; ++j, ahead(1))
        for (int r = 0; r < Rows; ++r) {
            float sum = c[r * op.cols];
            for (int i = 0; i < kDeep; ++i) sum += x[r][i] * *b[i];
            c[r * op.cols] = sum;
        }
}

VD_INLINE void scale(float* c, Index count, float beta) {
    if (beta == 0.f)
        zero(c, count);
    else if (beta != 1.f)
        for (Index i = 0; i < count; ++i) c[i] *= beta;
}

// dx = dy weight, weight (depth, cols): rows of the weights are added to a strip of dx, which fits
// in half of the L2 cache, since long runs increase the memory bandwidth.
static void skinny_backward_data(Team* team, const GemmOperands& op) {
    constexpr Index kNear = 1 << 16;  // floats of dx, along the columns of one item
    const Index even = ceil_div(op.cols, 4 * team_size(team));
    const Index strip = round_up(least(kNear / most(16, op.rows), even), 2 * kLanes);
    parallel(team, ceil_div(op.cols, strip), [&](Index item, int) {
        const Index first = item * strip, cols = least(strip, op.cols - first);
        for (Index r = 0; r < op.rows; ++r) scale(op.c + r * op.cols + first, cols, op.beta);
        for (Index k = 0; k < op.depth; k += kDeep)
            for (Index row = 0; row < op.rows;) {
                const Index depth = least(kDeep, op.depth - k), left = op.rows - row;
                const Index rows = left >= 8 ? 8 : left >= 4 ? 4 : 1;
                (rows == 8 ? add_rows<8> : rows == 4 ? add_rows<4> : add_rows<1>)(op, row, k, depth,
                                                                                first, cols);
                row += rows;
            }
    });
}

// Rows of c = beta c + rows of b, weighted by columns of a, over Vectors vectors from `col`.
template <int Rows, int Vectors, bool Stream>
VD_INLINE void update_block(const GemmOperands& op, const float* weights, Index row, Index col) {
    Vec sum[Rows][Vectors] = {};
    const float* b = op.b + col;
    for (Index k = 0; k < op.depth; ++k, b += op.cols, weights += kOuterRows) {
        Vec y[Vectors];
        VD_UNROLL
        for (int e = 0; e < Vectors; ++e) y[e] = load(b + e * kLanes);
        VD_UNROLL
        for (int r = 0; r < Rows; ++r) {
            const Vec x = broadcast(weights[r]);
            VD_UNROLL
            for (int e = 0; e < Vectors; ++e) sum[r][e] += x * y[e];
        }
    }
    VD_UNROLL
    for (int r = 0; r < Rows; ++r)
        for (int e = 0; e < Vectors; ++e) {
            float* to = op.c + (row + r) * op.cols + col + e * kLanes;
            if (Stream)
                stream(to, sum[r][e]);
            else
                store(to, op.beta == 0.f ? sum[r][e] : sum[r][e] + op.beta * load(to));
        }
}

template <int Rows, bool Stream>
void update_rows(const GemmOperands& op, Index row, Index first, Index last) {
    alignas(64) float weights[kSkinny * kOuterRows];
    for (Index k = 0; k < op.depth; ++k)
        for (int r = 0; r < Rows; ++r)
            weights[k * kOuterRows + r] = op.alpha * op.a[k * op.rows + row + r];
    constexpr Index kWide = kOuterVectors * kLanes;
    Index j = first;
    for (; j + kWide <= last; j += kWide)
        update_block<Rows, kOuterVectors, Stream>(op, weights, row, j);
    for (; j + kLanes <= last; j += kLanes) update_block<Rows, 1, Stream>(op, weights, row, j);
    for (; j < last; ++j)
        for (int r = 0; r < Rows; ++r) {
            float sum = 0.f;
            for (Index k = 0; k < op.depth; ++k)
                sum += weights[k * kOuterRows + r] * op.b[k * op.cols + j];
            float* to = op.c + (row + r) * op.cols + j;
            *to = op.beta == 0.f ? sum : sum + op.beta * *to;
        }
}

// dw += dy^T x: each element of the large result is accessed once, by rows and strips; the strips
// of x fit in the L1 cache. A result that is larger than the caches is written with non-temporal
// stores.
static void skinny_backward_weight(Team* team, const GemmOperands& op) {
    constexpr Index kGroup = 16;        // rows of one item
    constexpr Index kNear = 5120;       // floats of a strip of x
    constexpr Index kLarge = 1 << 20;   // floats of the result
    const bool aligned = reinterpret_cast<std::uintptr_t>(op.c) % sizeof(Vec) == 0 &&
                         op.cols % kLanes == 0;
    const bool past = aligned && op.beta == 0.f && op.rows * op.cols >= kLarge;
    auto update = past ? update_rows<kOuterRows, true> : update_rows<kOuterRows, false>;
    auto update_one = past ? update_rows<1, true> : update_rows<1, false>;
    const Index wide = kOuterVectors * kLanes;
    const Index strip = most(1, kNear / most(1, op.depth) / wide) * wide;
    parallel(team, ceil_div(op.rows, kGroup), [&](Index item, int) {
        const Index last = least((item + 1) * kGroup, op.rows);
        for (Index first = 0; first < op.cols; first += strip)
            for (Index row = item * kGroup; row < last;) {
                const bool many = last - row >= kOuterRows;
                (many ? update : update_one)(op, row, first, least(first + strip, op.cols));
                row += many ? kOuterRows : 1;
            }
        stream_end();
    });
}

// c = beta c, the product without terms. Shapes: c (rows, cols).
static void gemm_of_no_depth(Team* team, const GemmOperands& op) {
    constexpr Index kPart = 1 << 16;
    parallel_parts(team, op.rows * op.cols, kPart, [&](Index first, Index last) {
        scale(op.c + first, last - first, op.beta);
    });
}

// Compute the product if it is of one of these kinds; returns whether it is. No dimension is 0.
static bool gemm_skinny(Team* team, const GemmOperands& op) {
    if (!op.trans_a && op.trans_b && op.rows <= kSkinny)
        skinny_forward(team, op);
    else if (!op.trans_a && !op.trans_b && op.rows <= kSkinny)
        skinny_backward_data(team, op);
    else if (op.trans_a && !op.trans_b && op.depth <= kSkinny)
        skinny_backward_weight(team, op);
    else
        return false;
    return true;
}

}  // namespace verydeep::VD_ISA
