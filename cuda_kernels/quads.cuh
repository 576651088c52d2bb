// Reads and writes of elementwise kernels, four elements per thread. A complete, aligned quad is
// one access of 16 bytes; any other is accessed element by element, so views may begin anywhere.
#pragma once

#include "common.cuh"

constexpr int QUAD = 4;

__device__ __forceinline__ bool is_aligned(const void* address, int bytes) {
    return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

// Four elements of x (count) from `first` on; 0 beyond the end.
__device__ __forceinline__ void load_quad(const float* x, int64_t first, int64_t count,
                                          float (&quad)[QUAD]) {
    if (first + QUAD <= count && is_aligned(x + first, 16)) {
        const float4 whole = *reinterpret_cast<const float4*>(x + first);
        quad[0] = whole.x;
        quad[1] = whole.y;
        quad[2] = whole.z;
        quad[3] = whole.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        quad[i] = first + i < count ? x[first + i] : 0.0f;
    }
}

__device__ __forceinline__ void store_quad(float* y, int64_t first, int64_t count,
                                           const float (&quad)[QUAD]) {
    if (first + QUAD <= count && is_aligned(y + first, 16)) {
        *reinterpret_cast<float4*>(y + first) = make_float4(quad[0], quad[1], quad[2], quad[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        if (first + i < count) {
            y[first + i] = quad[i];
        }
    }
}

// As above, for bytes (masks).
__device__ __forceinline__ void load_quad(const uint8_t* x, int64_t first, int64_t count,
                                          uint8_t (&quad)[QUAD]) {
    if (first + QUAD <= count && is_aligned(x + first, 4)) {
        const unsigned whole = *reinterpret_cast<const unsigned*>(x + first);
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            quad[i] = static_cast<uint8_t>(whole >> 8 * i);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        quad[i] = first + i < count ? x[first + i] : uint8_t{0};
    }
}

__device__ __forceinline__ void store_quad(uint8_t* y, int64_t first, int64_t count,
                                           const uint8_t (&quad)[QUAD]) {
    if (first + QUAD <= count && is_aligned(y + first, 4)) {
        unsigned whole = 0;
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            whole |= static_cast<unsigned>(quad[i]) << 8 * i;
        }
        *reinterpret_cast<unsigned*>(y + first) = whole;
        return;
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        if (first + i < count) {
            y[first + i] = quad[i];
        }
    }
}
