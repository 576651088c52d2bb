// softmax.cu -- exp(x - max) / sum along channels, and its gradient
// v1  one position (outer, inner) per thread, which iterates over the channels: reads are coalesced
//     if inner is large                                         <- launched for inner >= 32
// v2  one position per warp: lanes share the channels, sums by a fixed tree; reads are coalesced if
//     inner is 1                                                <- launched for inner < 32
// launch: v1 block 256, grid ceil(places / 256); v2 block 256, grid ceil(places / 8)
// bytes: x is read three times, twice from the caches; y is written, read and written. fc8 at
// batch 64 is 256 kB: 0.1 us at an H200's 4.8 TB/s, so it takes a few us, bound by latency, as do
// the maps of a dense net up to several megabytes.
// sm_90: 32 registers, all warps resident
#include <cfloat>

#include "common.cuh"

constexpr int BLOCK = 256;

// The maximum over the warp, in every lane.
__device__ __forceinline__ float warp_max(float value) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, step));
    }
    return value;
}

// The index of channel 0 of a position, in (outer, C, inner).
__device__ __forceinline__ int64_t first_of(int64_t place, int C, int inner) {
    return place / inner * C * inner + place % inner;
}

// x (outer, C, inner) in; y of the same shape out, may be x. places = outer * inner
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_forward(const float* x, float* y, int64_t places, int C, int inner) {
    const int64_t place = global_thread();
    if (place >= places) {
        return;
    }
    const int64_t first = first_of(place, C, inner);
    float top = -FLT_MAX, sum = 0.0f;
    for (int c = 0; c < C; ++c) {
        top = fmaxf(top, x[first + static_cast<int64_t>(c) * inner]);
    }
    for (int c = 0; c < C; ++c) {
        sum += expf(x[first + static_cast<int64_t>(c) * inner] - top);
    }
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        y[at] = expf(x[at] - top) / sum;
    }
}

// y, dy (outer, C, inner) in; dx of the same shape out, may be dy
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_backward(const float* y, const float* dy, float* dx, int64_t places, int C, int inner) {
    const int64_t place = global_thread();
    if (place >= places) {
        return;
    }
    const int64_t first = first_of(place, C, inner);
    float sum = 0.0f;
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        sum += dy[at] * y[at];
    }
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        dx[at] = (dy[at] - sum) * y[at];
    }
}

// As softmax_forward, one position per warp
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_warp_forward(const float* x, float* y, int64_t places, int C, int inner) {
    const int64_t place = global_thread() / WARP;
    const int lane = threadIdx.x % WARP;
    if (place >= places) {
        return;
    }
    const int64_t first = first_of(place, C, inner);
    float top = -FLT_MAX, sum = 0.0f;
    for (int c = lane; c < C; c += WARP) {
        top = fmaxf(top, x[first + static_cast<int64_t>(c) * inner]);
    }
    top = warp_max(top);
    for (int c = lane; c < C; c += WARP) {
        sum += expf(x[first + static_cast<int64_t>(c) * inner] - top);
    }
    sum = warp_sum(sum);
    for (int c = lane; c < C; c += WARP) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        y[at] = expf(x[at] - top) / sum;
    }
}

// As softmax_backward, one position per warp
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_warp_backward(const float* y, const float* dy, float* dx, int64_t places, int C,
                          int inner) {
    const int64_t place = global_thread() / WARP;
    const int lane = threadIdx.x % WARP;
    if (place >= places) {
        return;
    }
    const int64_t first = first_of(place, C, inner);
    float sum = 0.0f;
    for (int c = lane; c < C; c += WARP) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        sum += dy[at] * y[at];
    }
    sum = warp_sum(sum);
    for (int c = lane; c < C; c += WARP) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        dx[at] = (dy[at] - sum) * y[at];
    }
}
