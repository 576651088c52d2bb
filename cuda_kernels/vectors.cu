// vectors.cu -- fill, y += alpha x, x *= alpha, x - y, and a strided copy of rows
// v1  one element per thread: a tenth to a fifth below the speed of memory, since a thread waits
//     for a single load of 4 bytes
// v2  four elements per thread, in one access of 16 bytes if the view is aligned   <- launched
// launch: block 256, grid ceil(count / 1024); copy_2d: block 256, grid (ceil(cols / 256), rows)
// bytes per element: fill 4, scal 8, copy_2d 8, axpy 12, sub 12; at most 2 operations. Bound by
// memory alone: an H200 (4.8 TB/s) needs 2.5 us for axpy over a million elements.
// sm_90: at most 19 registers, all warps resident
#include "quads.cuh"

constexpr int BLOCK = 256;

// y (count) out
extern "C" __global__ void __launch_bounds__(BLOCK) fill(float* y, int64_t count, float value) {
    const float quad[QUAD] = {value, value, value, value};
    store_quad(y, QUAD * global_thread(), count, quad);
}

// x (count) in; y (count) in and out
extern "C" __global__ void __launch_bounds__(BLOCK)
    axpy(const float* x, float* y, int64_t count, float alpha) {
    const int64_t first = QUAD * global_thread();
    float added[QUAD], sum[QUAD];
    load_quad(x, first, count, added);
    load_quad(y, first, count, sum);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        sum[i] += alpha * added[i];
    }
    store_quad(y, first, count, sum);
}

// x (count) in and out
extern "C" __global__ void __launch_bounds__(BLOCK) scal(float* x, int64_t count, float alpha) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        value[i] *= alpha;
    }
    store_quad(x, first, count, value);
}

// x, y (count) in; out (count) out, may be x or y
extern "C" __global__ void __launch_bounds__(BLOCK)
    sub(const float* x, const float* y, float* out, int64_t count) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], taken[QUAD];
    load_quad(x, first, count, value);
    load_quad(y, first, count, taken);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        value[i] -= taken[i];
    }
    store_quad(out, first, count, value);
}

// src in: row r at r * src_stride, dst out: row r at r * dst_stride; `cols` elements of each row
extern "C" __global__ void __launch_bounds__(BLOCK)
    copy_2d(const float* src, float* dst, int64_t rows, int64_t cols, int64_t src_stride,
            int64_t dst_stride) {
    const int64_t col = global_thread();
    if (col >= cols) {
        return;
    }
    for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        dst[row * dst_stride + col] = src[row * src_stride + col];
    }
}
