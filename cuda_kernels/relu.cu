// relu.cu -- max(x, 0) with a slope below zero, and its gradient; both may be in place
// v1  one element per thread
// v2  four elements per thread as 16 bytes                                          <- launched
// v3  in the kernel of the preceding convolution (`Epilogue`): no separate pass
// launch: block 256, grid ceil(count / 1024)
// bytes per element: forward 8, backward 12. Bound by memory: conv1_2 of net D at batch 64 (205
// million elements) needs 0.34 and 0.51 ms on an H200 at 4.8 TB/s.
// sm_90: 19 registers, all warps resident
#include "quads.cuh"

constexpr int BLOCK = 256;

// x (count) in; y (count) out, may be x. NaN gives NaN.
extern "C" __global__ void __launch_bounds__(BLOCK)
    relu_forward(const float* x, float* y, int64_t count, float slope) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        // Slope 0 must give 0 for minus infinity, not NaN.
        const float below = slope == 0.0f ? 0.0f : slope * value[i];
        value[i] = value[i] <= 0.0f ? below : value[i];
    }
    store_quad(y, first, count, value);
}

// x, dy (count) in; dx (count) out, may be dy. x may be the output, which has the same sign.
extern "C" __global__ void __launch_bounds__(BLOCK)
    relu_backward(const float* x, const float* dy, float* dx, int64_t count, float slope) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], gradient[QUAD];
    load_quad(x, first, count, value);
    load_quad(dy, first, count, gradient);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        gradient[i] *= value[i] > 0.0f ? 1.0f : slope;
    }
    store_quad(dx, first, count, gradient);
}
