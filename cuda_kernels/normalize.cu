// normalize.cu -- division by the L2 norm over channels, times a scale per channel, and gradients
// v1  on the host: the blobs are copied both ways in each pass
// v2  a position per thread, which iterates over its channels twice; the second read is from the
//     L2 cache, neighbouring threads read neighbouring positions                    <- launched
// launch: block 256, grid ceil(N * inner / 256)
// bytes per element: forward 8 from memory and 4 from the cache, backward 12 and 8; bound by memory
#include "common.cuh"

constexpr int BLOCK = 256;

// The first element of a thread's position in x (N,C,inner).
__device__ __forceinline__ int64_t first_element(int64_t position, int C, int inner) {
    return position / inner * C * inner + position % inner;
}

// x (N,C,inner) in; scale (C) or (1) in; norm (N,inner) out; y as x out. positions = N * inner;
// scale_step is 1, or 0 for a scale that all channels share
extern "C" __global__ void __launch_bounds__(BLOCK)
    normalize_forward(const float* x, const float* scale, float* norm, float* y, int64_t positions,
                      int C, int inner, int scale_step, float eps) {
    const int64_t position = global_thread();
    if (position >= positions) {
        return;
    }
    const int64_t first = first_element(position, C, inner);
    float sum = 0.0f;
    for (int c = 0; c < C; ++c) {
        const float value = x[first + static_cast<int64_t>(c) * inner];
        sum += value * value;
    }
    const float length = sqrtf(sum + eps);
    norm[position] = length;
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        y[at] = x[at] / length * __ldg(scale + c * scale_step);
    }
}

// x, dy (N,C,inner) in; norm (N,inner), scale in; dx as x out; share as x out: dy * x / norm, whose
// sums are the gradient of the scale. dx or share may be null; dx may be dy.
extern "C" __global__ void __launch_bounds__(BLOCK)
    normalize_backward(const float* x, const float* norm, const float* scale, const float* dy,
                       float* dx, float* share, int64_t positions, int C, int inner,
                       int scale_step) {
    const int64_t position = global_thread();
    if (position >= positions) {
        return;
    }
    const int64_t first = first_element(position, C, inner);
    const float length = norm[position];
    float along = 0.0f;
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        const float unit = x[at] / length;
        along += dy[at] * __ldg(scale + c * scale_step) * unit;
        if (share != nullptr) {
            share[at] = dy[at] * unit;
        }
    }
    if (dx == nullptr) {
        return;
    }
    for (int c = 0; c < C; ++c) {
        const int64_t at = first + static_cast<int64_t>(c) * inner;
        dx[at] = (dy[at] * __ldg(scale + c * scale_step) - x[at] / length * along) / length;
    }
}
