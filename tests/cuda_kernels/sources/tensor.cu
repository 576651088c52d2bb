// requires: sm_80
// tensor.cu -- products of one warp's fragments, and copies past the registers
#include "async_copy.cuh"
#include "mma.cuh"

// a (16,8), b (8,8), d (16,8) in and out
extern "C" __global__ void __launch_bounds__(32)
tf32_product(const float* a, const float* b, float* d) {
    const int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const uint32_t fa[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]),
                            to_tf32(a[g * 8 + t + 4]), to_tf32(a[(g + 8) * 8 + t + 4])};
    const uint32_t fb[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
    float fd[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t],
                   d[(g + 8) * 8 + 2 * t + 1]};
    mma_tf32_16x8x8(fd, fa, fb);
    d[g * 8 + 2 * t] = fd[0];
    d[g * 8 + 2 * t + 1] = fd[1];
    d[(g + 8) * 8 + 2 * t] = fd[2];
    d[(g + 8) * 8 + 2 * t + 1] = fd[3];
}

// a (16,K), b (K,8), d (16,8) in and out, by way of bf16 tiles and load_matrices
template <int K>
__device__ __forceinline__ void bf16_tiles(const float* a, const float* b, float* d) {
    SHARED(ta, uint16_t[16][16]);
    SHARED(tb, uint16_t[16][16]);
    for (int i = threadIdx.x; i < 256; i += WARP) {
        const int row = i / 16, column = i % 16;
        ta[row][column] = column < K ? to_bf16(a[row * K + column]) : 0;
        tb[row][column] = row < K && column < 8 ? to_bf16(b[row * 8 + column]) : 0;
    }
    __syncthreads();
    const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
    uint32_t fa[4], fb[4];
    load_matrices(fa, &ta[lane % 16][lane / 16 * 8]);
    load_matrices_transposed(fb, &tb[lane % 16][lane / 16 * 8]);
    float fd[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t],
                   d[(g + 8) * 8 + 2 * t + 1]};
    if constexpr (K == 16) {
        const uint32_t pair[2] = {fb[0], fb[1]};
        mma_bf16_16x8x16(fd, fa, pair);
    } else {
        const uint32_t half[2] = {fa[0], fa[1]}, one[1] = {fb[0]};
        mma_bf16_16x8x8(fd, half, one);
    }
    d[g * 8 + 2 * t] = fd[0];
    d[g * 8 + 2 * t + 1] = fd[1];
    d[(g + 8) * 8 + 2 * t] = fd[2];
    d[(g + 8) * 8 + 2 * t + 1] = fd[3];
}
extern "C" __global__ void __launch_bounds__(32)
bf16_product_16(const float* a, const float* b, float* d) {
    bf16_tiles<16>(a, b, d);
}
extern "C" __global__ void __launch_bounds__(32)
bf16_product_8(const float* a, const float* b, float* d) {
    bf16_tiles<8>(a, b, d);
}

// x (n) in; tf32, bf16 (n) out: x rounded
extern "C" __global__ void rounded(const float* x, float* tf32, float* bf16, int n) {
    if (threadIdx.x < n) {
        tf32[threadIdx.x] = __uint_as_float(to_tf32(x[threadIdx.x]));
        bf16[threadIdx.x] = from_bf16(to_bf16(x[threadIdx.x]));
    }
}

constexpr int STAGES = 2;
constexpr int STEP = 128;

enum class Fault { NONE, NO_WAIT, SHORT_WAIT, NO_BARRIER_AFTER };

// x (steps, STEP) in, y (STEP) out: the sum of rows, read in reverse, from a ring of two stages
template <Fault FAULT>
__device__ __forceinline__ void ring(const float* x, float* y, int steps) {
    SHARED(stage, float[STAGES][STEP]);
    auto send = [&](int step) {
        if (step < steps) {
            copy_async<4>(&stage[step % STAGES][threadIdx.x], &x[step * STEP + threadIdx.x]);
        }
        copy_async_commit();
    };
    send(0);
    float sum = 0.0f;
    for (int step = 0; step < steps; ++step) {
        send(step + 1);
        if (FAULT != Fault::NO_WAIT) {
            copy_async_wait<FAULT == Fault::SHORT_WAIT ? 2 : 1>();
        }
        __syncthreads();
        sum += stage[step % STAGES][STEP - 1 - threadIdx.x];
        if (FAULT != Fault::NO_BARRIER_AFTER) {
            __syncthreads();
        }
    }
    y[threadIdx.x] = sum;
}
extern "C" __global__ void __launch_bounds__(STEP) ring_right(const float* x, float* y, int steps) {
    ring<Fault::NONE>(x, y, steps);
}
extern "C" __global__ void __launch_bounds__(STEP)
ring_no_wait(const float* x, float* y, int steps) {
    ring<Fault::NO_WAIT>(x, y, steps);
}
extern "C" __global__ void __launch_bounds__(STEP)
ring_short_wait(const float* x, float* y, int steps) {
    ring<Fault::SHORT_WAIT>(x, y, steps);
}
extern "C" __global__ void __launch_bounds__(STEP)
ring_no_barrier(const float* x, float* y, int steps) {
    ring<Fault::NO_BARRIER_AFTER>(x, y, steps);
}

// x (8) in, y (8) out: a copy of which only `valid` bytes are taken
extern "C" __global__ void partial_copy(const float* x, float* y, int valid) {
    SHARED(tile, float4[2]);
    copy_async<16>(&tile[threadIdx.x], &x[4 * threadIdx.x], valid);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    const float4 quad = tile[threadIdx.x];
    y[4 * threadIdx.x] = quad.x;
    y[4 * threadIdx.x + 1] = quad.y;
    y[4 * threadIdx.x + 2] = quad.z;
    y[4 * threadIdx.x + 3] = quad.w;
}
