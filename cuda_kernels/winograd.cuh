// Winograd's F(2x2,3x3) and F(4x4,3x3) (Lavin & Gray 2016): the five 1-D transforms of each.
//
// A tile of M x M outputs is A^T ((G g G^T) * (B^T d B)) A for a 3x3 filter g and (M+2) x (M+2)
// inputs d. F(4,3) multiplies polynomials by their values at 0, 2/3, -2/3, 3/2, -3/2 and infinity,
// which halves the rounding error of the usual 0, 1, -1, 2, -2; with a * b = 1 the transforms need
// no more operations. The gradient of the weights is G^T ((A dy A^T) * (B^T d B)) G with the same
// matrices.
#pragma once

#include "common.cuh"

constexpr int FILTER = 3;

template <int M>
struct Winograd;

template <>
struct Winograd<2> {
    // B^T d
    static __device__ __forceinline__ void data(const float (&d)[4], float (&t)[4]) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[3] - d[1];
    }
    // G g
    static __device__ __forceinline__ void filter(const float (&g)[3], float (&t)[4]) {
        const float even = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
        t[0] = g[0];
        t[1] = even + odd;
        t[2] = even - odd;
        t[3] = g[2];
    }
    // A^T m
    static __device__ __forceinline__ void product(const float (&m)[4], float (&y)[2]) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] + m[3];
    }
    // A dy
    static __device__ __forceinline__ void gradient(const float (&y)[2], float (&t)[4]) {
        t[0] = y[0];
        t[1] = y[0] + y[1];
        t[2] = y[0] - y[1];
        t[3] = y[1];
    }
    // G^T m
    static __device__ __forceinline__ void weight(const float (&m)[4], float (&w)[3]) {
        const float even = 0.5f * (m[1] + m[2]);
        w[0] = m[0] + even;
        w[1] = 0.5f * (m[1] - m[2]);
        w[2] = even + m[3];
    }
};

template <>
struct Winograd<4> {
    static constexpr float a = 2.0f / 3, b = 3.0f / 2, aa = a * a, bb = b * b;
    // 1 / (2 a^2 (a^2 - b^2)) and 1 / (2 b^2 (b^2 - a^2)): G's rows at +-a and +-b.
    static constexpr float at_a = -81.0f / 130, at_b = 8.0f / 65;
    static constexpr float s = 97.0f / 36;  // a^2 + b^2

    static __device__ __forceinline__ void data(const float (&d)[6], float (&t)[6]) {
        const float even_a = d[4] - bb * d[2], odd_a = a * d[3] - b * d[1];
        const float even_b = d[4] - aa * d[2], odd_b = b * d[3] - a * d[1];
        t[0] = d[0] - s * d[2] + d[4];
        t[1] = even_a + odd_a;
        t[2] = even_a - odd_a;
        t[3] = even_b + odd_b;
        t[4] = even_b - odd_b;
        t[5] = d[1] - s * d[3] + d[5];
    }
    static __device__ __forceinline__ void filter(const float (&g)[3], float (&t)[6]) {
        const float even_a = at_a * (g[0] + aa * g[2]), odd_a = at_a * a * g[1];
        const float even_b = at_b * (g[0] + bb * g[2]), odd_b = at_b * b * g[1];
        t[0] = g[0];
        t[1] = even_a + odd_a;
        t[2] = even_a - odd_a;
        t[3] = even_b + odd_b;
        t[4] = even_b - odd_b;
        t[5] = g[2];
    }
    static __device__ __forceinline__ void product(const float (&m)[6], float (&y)[4]) {
        const float even_a = m[1] + m[2], odd_a = m[1] - m[2];
        const float even_b = m[3] + m[4], odd_b = m[3] - m[4];
        y[0] = m[0] + even_a + even_b;
        y[1] = a * odd_a + b * odd_b;
        y[2] = aa * even_a + bb * even_b;
        y[3] = aa * a * odd_a + bb * b * odd_b + m[5];
    }
    static __device__ __forceinline__ void gradient(const float (&y)[4], float (&t)[6]) {
        const float even_a = y[0] + aa * y[2], odd_a = a * (y[1] + aa * y[3]);
        const float even_b = y[0] + bb * y[2], odd_b = b * (y[1] + bb * y[3]);
        t[0] = y[0];
        t[1] = even_a + odd_a;
        t[2] = even_a - odd_a;
        t[3] = even_b + odd_b;
        t[4] = even_b - odd_b;
        t[5] = y[3];
    }
    static __device__ __forceinline__ void weight(const float (&m)[6], float (&w)[3]) {
        const float even_a = at_a * (m[1] + m[2]), odd_a = at_a * a * (m[1] - m[2]);
        const float even_b = at_b * (m[3] + m[4]), odd_b = at_b * b * (m[3] - m[4]);
        w[0] = m[0] + even_a + even_b;
        w[1] = odd_a + odd_b;
        w[2] = aa * even_a + bb * even_b + m[5];
    }
};

// The 2-D transform: applies `line` to every column, then to every row.
template <int IN, int OUT, class Line>
__device__ __forceinline__ void transform_square(const float (&in)[IN][IN], float (&out)[OUT][OUT],
                                                 Line line) {
    float half[OUT][IN];
#pragma unroll
    for (int col = 0; col < IN; ++col) {
        float from[IN], to[OUT];
#pragma unroll
        for (int row = 0; row < IN; ++row) {
            from[row] = in[row][col];
        }
        line(from, to);
#pragma unroll
        for (int row = 0; row < OUT; ++row) {
            half[row][col] = to[row];
        }
    }
#pragma unroll
    for (int row = 0; row < OUT; ++row) {
        line(half[row], out[row]);
    }
}
