// faults.cu -- small kernels, each right and with one fault planted, for the emulator to find
#include "common.cuh"

constexpr int THREADS = 128;

// x, y (THREADS): y is x from its end to its start, by way of shared memory.
template <bool BARRIER>
__device__ void reverse_by_tile(const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    if (BARRIER) {
        __syncthreads();
    }
    y[threadIdx.x] = tile[THREADS - 1 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(THREADS) reverse(const float* x, float* y, int n) {
    reverse_by_tile<true>(x, y);
}
extern "C" __global__ void __launch_bounds__(THREADS)
missing_barrier(const float* x, float* y, int n) {
    reverse_by_tile<false>(x, y);
}

// x (2, THREADS), y (THREADS): sums of two reversed rows through one tile.
template <bool BARRIER>
__device__ void reuse_tile(const float* x, float* y) {
    SHARED(tile, float[THREADS]);
    float sum = 0.0f;
    for (int row = 0; row < 2; ++row) {
        if (BARRIER && row > 0) {
            __syncthreads();
        }
        tile[threadIdx.x] = x[row * THREADS + threadIdx.x];
        __syncthreads();
        sum += tile[THREADS - 1 - threadIdx.x];
    }
    y[threadIdx.x] = sum;
}
extern "C" __global__ void __launch_bounds__(THREADS) reuse(const float* x, float* y, int n) {
    reuse_tile<true>(x, y);
}
extern "C" __global__ void __launch_bounds__(THREADS)
write_after_read(const float* x, float* y, int n) {
    reuse_tile<false>(x, y);
}

// y (n): one thread too many writes, or a thread before the first.
extern "C" __global__ void copy(const float* x, float* y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x];
}
extern "C" __global__ void write_beyond(const float* x, float* y, int n) {
    if (threadIdx.x < n) y[threadIdx.x + 1] = 1.0f;
}
extern "C" __global__ void write_before(const float* x, float* y, int n) {
    if (threadIdx.x < n) y[static_cast<int>(threadIdx.x) - 1] = 1.0f;
}
extern "C" __global__ void write_far(const float* x, float* y, int n) {
    y[threadIdx.x + 8192] = 1.0f;
}
extern "C" __global__ void write_wild(const float* x, float* y, int n) {
    y[int64_t{1} << 45] = 1.0f;
}
extern "C" __global__ void read_beyond(const float* x, float* y, int n) {
    if (threadIdx.x < n) y[threadIdx.x] = x[threadIdx.x + 1];
}

// x (2, n / 2) summed down its columns; with a row taken one element too long.
extern "C" __global__ void column_sums(const float* x, float* y, int n) {
    if (threadIdx.x < n / 2) y[threadIdx.x] = x[threadIdx.x] + x[n / 2 + threadIdx.x];
}
extern "C" __global__ void wrong_stride(const float* x, float* y, int n) {
    if (threadIdx.x < n / 2) y[threadIdx.x] = x[threadIdx.x] + x[n / 2 + 1 + threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(THREADS)
shared_write_beyond(const float* x, float* y, int n) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x + 1] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = threadIdx.x > 0 ? tile[threadIdx.x] : 0.0f;
}
extern "C" __global__ void __launch_bounds__(THREADS)
shared_read_beyond(const float* x, float* y, int n) {
    SHARED(tile, float[THREADS]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x + 1];
}
extern "C" __global__ void __launch_bounds__(THREADS)
shared_not_written(const float* x, float* y, int n) {
    SHARED(tile, float[THREADS]);
    if (threadIdx.x > 0) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void __launch_bounds__(THREADS)
return_before_barrier(const float* x, float* y, int n) {
    if (threadIdx.x == 100) return;
    __syncthreads();
    y[threadIdx.x] = x[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(THREADS)
fewer_barriers(const float* x, float* y, int n) {
    for (int i = 0; i < (threadIdx.x == 100 ? 1 : 2); ++i) {
        __syncthreads();
    }
    y[threadIdx.x] = x[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(THREADS)
two_barriers(const float* x, float* y, int n) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    y[threadIdx.x] = x[threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(THREADS)
absent_lanes(const float* x, float* y, int n) {
    float value = x[threadIdx.x];
    if (threadIdx.x % 32 < 16) value += __shfl_xor_sync(ALL_LANES, value, 1);
    y[threadIdx.x] = value;
}
extern "C" __global__ void __launch_bounds__(THREADS)
not_in_own_mask(const float* x, float* y, int n) {
    y[threadIdx.x] = __shfl_sync(0xffffu, x[threadIdx.x], 0);
}

extern "C" __global__ void divide_by_zero(const float* x, float* y, int n) {
    y[threadIdx.x] = static_cast<float>(7 / (n / 1000));
}
__device__ __noinline__ float deeper(float value, int depth) {
    volatile float local[1024];
    local[depth % 1024] = value;
    return depth == 0 ? local[0] : deeper(value, depth - 1) + local[depth % 1024];
}
extern "C" __global__ void deep_stack(const float* x, float* y, int n) {
    y[threadIdx.x] = deeper(x[threadIdx.x], n);
}

extern "C" __global__ void too_much_shared(const float* x, float* y, int n) {
    SHARED(large, float[12000]);
    SHARED(more, float[300]);
    large[threadIdx.x] = more[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = large[threadIdx.x] + more[threadIdx.x];
}
extern "C" __global__ void dynamic_shared(const float* x, float* y, int n) {
    SHARED_DYNAMIC(tile, float[30000]);
    tile[29999 - threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[29999 - threadIdx.x];
}
