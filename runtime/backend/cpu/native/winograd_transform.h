// The 1-D transforms of Winograd's F(M,3), M = 2 or 4 (Lavin and Gray 2016), on vectors.
//
// A convolution of M outputs with 3 taps is output(input(d) * filter(g)), with M + 2 products
// instead of 3 M. It is applied along both axes of a tile. Elements of `d` are `from` vectors
// apart, elements of `o` `to` vectors.
#pragma once

#include "vector.h"

namespace verydeep::VD_ISA {

template <int M>
struct Winograd;

// Points 0, a, -a, b, -b, infinity with a = 2/3, b = 3/2: less than half the rounding error of the
// usual 1 and 2 with the same number of operations, since a b = 1.
template <>
struct Winograd<4> {
    static constexpr int kOut = 4, kTile = 6, kPlanes = 36;
    static constexpr float a = 2.f / 3, b = 3.f / 2;
    static constexpr float a2 = 4.f / 9, b2 = 9.f / 4, a3 = 8.f / 27, b3 = 27.f / 8;
    static constexpr float sum2 = 97.f / 36;  // a2 + b2
    // 1 / (product of the differences of a point to the others), for a and b.
    static constexpr float wa = -1.f / (2 * 4.f / 9 * 65 / 36), wb = 1.f / (2 * 9.f / 4 * 65 / 36);

    VD_INLINE void input(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from];
        Vec d5 = d[5 * from];
        Vec even_a = d4 - b2 * d2, odd_a = d3 - b2 * d1, even_b = d4 - a2 * d2, odd_b = d3 - a2 * d1;
        o[0] = (d0 + d4) - sum2 * d2;
        o[to] = even_a + a * odd_a;
        o[2 * to] = even_a - a * odd_a;
        o[3 * to] = even_b + b * odd_b;
        o[4 * to] = even_b - b * odd_b;
        o[5 * to] = (d1 + d5) - sum2 * d3;
    }
    VD_INLINE void output(const Vec* d, Index from, Vec* o, Index to) {
        Vec even_a = d[from] + d[2 * from], odd_a = d[from] - d[2 * from];
        Vec even_b = d[3 * from] + d[4 * from], odd_b = d[3 * from] - d[4 * from];
        o[0] = d[0] + even_a + even_b;
        o[to] = a * odd_a + b * odd_b;
        o[2 * to] = a2 * even_a + b2 * even_b;
        o[3 * to] = d[5 * from] + a3 * odd_a + b3 * odd_b;
    }
    // The transpose of `output`, for the gradient of the outputs.
    VD_INLINE void gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from];
        Vec even_a = d0 + a2 * d2, odd_a = a * d1 + a3 * d3;
        Vec even_b = d0 + b2 * d2, odd_b = b * d1 + b3 * d3;
        o[0] = d0;
        o[to] = even_a + odd_a;
        o[2 * to] = even_a - odd_a;
        o[3 * to] = even_b + odd_b;
        o[4 * to] = even_b - odd_b;
        o[5 * to] = d3;
    }
    VD_INLINE void filter(const Vec* g, Index from, Vec* o, Index to) {
        Vec g0 = g[0], g1 = g[from], g2 = g[2 * from];
        Vec even_a = wa * g0 + (wa * a2) * g2, odd_a = (wa * a) * g1;
        Vec even_b = wb * g0 + (wb * b2) * g2, odd_b = (wb * b) * g1;
        o[0] = g0;
        o[to] = even_a + odd_a;
        o[2 * to] = even_a - odd_a;
        o[3 * to] = even_b + odd_b;
        o[4 * to] = even_b - odd_b;
        o[5 * to] = g2;
    }
    // The transpose of `filter`, for the gradient of the taps.
    VD_INLINE void filter_gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec even_a = d[from] + d[2 * from], odd_a = d[from] - d[2 * from];
        Vec even_b = d[3 * from] + d[4 * from], odd_b = d[3 * from] - d[4 * from];
        o[0] = d[0] + wa * even_a + wb * even_b;
        o[to] = (wa * a) * odd_a + (wb * b) * odd_b;
        o[2 * to] = d[5 * from] + (wa * a2) * even_a + (wb * b2) * even_b;
    }
};

// Points 0, 1, -1, infinity.
template <>
struct Winograd<2> {
    static constexpr int kOut = 2, kTile = 4, kPlanes = 16;

    VD_INLINE void input(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from];
        o[0] = d0 - d2;
        o[to] = d1 + d2;
        o[2 * to] = d2 - d1;
        o[3 * to] = d1 - d3;
    }
    VD_INLINE void output(const Vec* d, Index from, Vec* o, Index to) {
        Vec d1 = d[from], d2 = d[2 * from];
        o[0] = d[0] + d1 + d2;
        o[to] = d1 - d2 - d[3 * from];
    }
    VD_INLINE void gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from];
        o[0] = d0;
        o[to] = d0 + d1;
        o[2 * to] = d0 - d1;
        o[3 * to] = -d1;
    }
    VD_INLINE void filter(const Vec* g, Index from, Vec* o, Index to) {
        Vec g0 = g[0], g2 = g[2 * from];
        Vec a = (g0 + g2) * .5f, b = g[from] * .5f;
        o[0] = g0;
        o[to] = a + b;
        o[2 * to] = a - b;
        o[3 * to] = g2;
    }
    VD_INLINE void filter_gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec a = (d[from] + d[2 * from]) * .5f, b = (d[from] - d[2 * from]) * .5f;
        o[0] = d[0] + a;
        o[to] = b;
        o[2 * to] = a + d[3 * from];
    }
};

}  // namespace verydeep::VD_ISA
