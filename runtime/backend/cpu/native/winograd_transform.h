// The one-dimensional transforms of Winograd's F(M,3), M = 2 or 4 (Lavin and Gray 2016), on vectors.
//
// A convolution of M outputs by 3 taps is output(input(d) * filter(g)) with M + 2 products instead
// of 3 M. Applied along both axes of a tile. `d` and `o` point at elements `from` and `to` vectors
// apart.
#pragma once

#include "vector.h"

namespace verydeep::VD_ISA {

template <int M>
struct Winograd;

// Points 0, 1, -1, 2, -2, infinity.
template <>
struct Winograd<4> {
    static constexpr int kOut = 4, kTile = 6, kPlanes = 36;

    VD_INLINE void input(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from], d4 = d[4 * from];
        Vec d5 = d[5 * from];
        Vec a = d4 - 4.f * d2, b = d3 - 4.f * d1, c = d4 - d2, e = 2.f * (d3 - d1);
        o[0] = 4.f * d0 - 5.f * d2 + d4;
        o[to] = a + b;
        o[2 * to] = a - b;
        o[3 * to] = c + e;
        o[4 * to] = c - e;
        o[5 * to] = 4.f * d1 - 5.f * d3 + d5;
    }
    VD_INLINE void output(const Vec* d, Index from, Vec* o, Index to) {
        Vec a = d[from] + d[2 * from], b = d[from] - d[2 * from];
        Vec c = d[3 * from] + d[4 * from], e = d[3 * from] - d[4 * from];
        o[0] = d[0] + a + c;
        o[to] = b + 2.f * e;
        o[2 * to] = a + 4.f * c;
        o[3 * to] = b + 8.f * e + d[5 * from];
    }
    // The transpose of `output`, for the gradient of the outputs.
    VD_INLINE void gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec d0 = d[0], d1 = d[from], d2 = d[2 * from], d3 = d[3 * from];
        Vec a = d0 + d2, b = d1 + d3, c = d0 + 4.f * d2, e = 2.f * d1 + 8.f * d3;
        o[0] = d0;
        o[to] = a + b;
        o[2 * to] = a - b;
        o[3 * to] = c + e;
        o[4 * to] = c - e;
        o[5 * to] = d3;
    }
    VD_INLINE void filter(const Vec* g, Index from, Vec* o, Index to) {
        Vec g0 = g[0], g1 = g[from], g2 = g[2 * from];
        Vec a = (g0 + g2) * (-1.f / 6), b = g1 * (-1.f / 6);
        Vec c = g0 * (1.f / 24) + g2 * (1.f / 6), e = g1 * (1.f / 12);
        o[0] = g0 * .25f;
        o[to] = a + b;
        o[2 * to] = a - b;
        o[3 * to] = c + e;
        o[4 * to] = c - e;
        o[5 * to] = g2;
    }
    // The transpose of `filter`, back to the gradient of the taps.
    VD_INLINE void filter_gradient(const Vec* d, Index from, Vec* o, Index to) {
        Vec a = d[from] + d[2 * from], b = d[from] - d[2 * from];
        Vec c = d[3 * from] + d[4 * from], e = d[3 * from] - d[4 * from];
        o[0] = d[0] * .25f - a * (1.f / 6) + c * (1.f / 24);
        o[to] = b * (-1.f / 6) + e * (1.f / 12);
        o[2 * to] = a * (-1.f / 6) + c * (1.f / 6) + d[5 * from];
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
