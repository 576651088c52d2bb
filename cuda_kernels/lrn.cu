// lrn.cu -- local response normalisation across channels, and its gradient
// v1  one element per thread, which reads its complete window: each plane is read `size` times,
//     mostly from the L2 cache                                          <- launched, any size
// v2  one position per thread, which iterates over 16 channels with the window of 5 in registers:
//     each plane is read 20/16 times                                    <- launched for size 5
// The window is summed again at each step: a running sum would accumulate rounding errors.
// launch: v1 block 256, grid ceil(count / 256); v2 block 256, grid (ceil(inner / 256),
// N * ceil(C / 16))
// bytes per element: forward 12, backward 20; bound by memory: the LRN of net A-LRN at batch 64
// (205 million elements) needs 0.52 and 0.86 ms on an H200 at 4.8 TB/s.
// sm_90: at most 32 registers, all warps resident
#include "common.cuh"

constexpr int BLOCK = 256;
constexpr int WALK = 16;
constexpr int WINDOW = 5;

// base^-beta; the usual exponent 3/4 takes two square roots.
__device__ __forceinline__ float negative_power(float base, float beta) {
    if (beta == 0.75f) {
        const float root = sqrtf(base);
        return 1.0f / (root * sqrtf(root));
    }
    return powf(base, -beta);
}

// x (N,C,inner) in; scale, y of the same shape out. alpha is already divided by the size.
extern "C" __global__ void __launch_bounds__(BLOCK)
    lrn_forward(const float* x, float* scale, float* y, int64_t count, int C, int inner, int size,
                float alpha, float beta, float k) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int c = at / inner % C, low = c - (size - 1) / 2;
    float sum = 0.0f;
    for (int other = max(low, 0); other < min(low + size, C); ++other) {
        const float value = __ldg(x + at + static_cast<int64_t>(other - c) * inner);
        sum += value * value;
    }
    const float divisor = k + alpha * sum;
    scale[at] = divisor;
    y[at] = __ldg(x + at) * negative_power(divisor, beta);
}

// x, y, scale, dy (N,C,inner) in; dx of the same shape out. slope = 2 alpha beta / size
extern "C" __global__ void __launch_bounds__(BLOCK)
    lrn_backward(const float* x, const float* y, const float* scale, const float* dy, float* dx,
                 int64_t count, int C, int inner, int size, float slope, float beta) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    // The channels whose window contains this one.
    const int c = at / inner % C, low = c - size / 2;
    float sum = 0.0f;
    for (int other = max(low, 0); other < min(low + size, C); ++other) {
        const int64_t there = at + static_cast<int64_t>(other - c) * inner;
        sum += __ldg(dy + there) * __ldg(y + there) / __ldg(scale + there);
    }
    dx[at] = __ldg(dy + at) * negative_power(__ldg(scale + at), beta) - slope * __ldg(x + at) * sum;
}

// The start of a thread of v2: channel `first` of a position; `element` is its channel 0.
struct Column {
    int64_t element;
    int first;
    bool inside;

    __device__ __forceinline__ Column(int C, int inner) {
        const int place = global_thread(), segments = ceil_div(C, WALK);
        inside = place < inner;
        first = blockIdx.y % segments * WALK;
        element = static_cast<int64_t>(blockIdx.y / segments) * C * inner + place;
    }
};

// Replaces the oldest term of the window by the next one, and sums the window in a fixed order.
__device__ __forceinline__ float shift_in(float (&window)[WINDOW], float next) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WINDOW; ++i) {
        window[i] = i + 1 < WINDOW ? window[(i + 1) % WINDOW] : next;
        sum += window[i];
    }
    return sum;
}

// As lrn_forward, for size 5
extern "C" __global__ void __launch_bounds__(BLOCK)
    lrn_5_forward(const float* x, float* scale, float* y, int C, int inner, float alpha, float beta,
                  float k) {
    const Column column(C, inner);
    if (!column.inside) {
        return;
    }
    float window[WINDOW] = {};
    auto square = [=](int c) {
        if (c < 0 || c >= C) {
            return 0.0f;
        }
        const float value = __ldg(x + column.element + static_cast<int64_t>(c) * inner);
        return value * value;
    };
    for (int c = column.first - WINDOW / 2; c < column.first + WINDOW / 2; ++c) {
        shift_in(window, square(c));
    }
    for (int c = column.first; c < min(column.first + WALK, C); ++c) {
        const int64_t at = column.element + static_cast<int64_t>(c) * inner;
        const float divisor = k + alpha * shift_in(window, square(c + WINDOW / 2));
        scale[at] = divisor;
        y[at] = __ldg(x + at) * negative_power(divisor, beta);
    }
}

// As lrn_backward, for size 5
extern "C" __global__ void __launch_bounds__(BLOCK)
    lrn_5_backward(const float* x, const float* y, const float* scale, const float* dy, float* dx,
                   int C, int inner, float slope, float beta) {
    const Column column(C, inner);
    if (!column.inside) {
        return;
    }
    float window[WINDOW] = {};
    auto term = [=](int c) {
        const int64_t at = column.element + static_cast<int64_t>(c) * inner;
        return c < 0 || c >= C ? 0.0f : __ldg(dy + at) * __ldg(y + at) / __ldg(scale + at);
    };
    for (int c = column.first - WINDOW / 2; c < column.first + WINDOW / 2; ++c) {
        shift_in(window, term(c));
    }
    for (int c = column.first; c < min(column.first + WALK, C); ++c) {
        const int64_t at = column.element + static_cast<int64_t>(c) * inner;
        const float sum = shift_in(window, term(c + WINDOW / 2));
        dx[at] =
            __ldg(dy + at) * negative_power(__ldg(scale + at), beta) - slope * __ldg(x + at) * sum;
    }
}
