// sums.cu -- sums over all elements of a vector: |x|, x^2, x*y
// v1  one block over all elements: two orders of magnitude too slow
// v2  stage 1: blocks sum pieces of 4096 elements; stage 2: one block sums the pieces. <- launched
//     The tree depends on the count alone, so the bits are the same on every device. Pieces are
//     added in float64: a vector of 10^8 elements has 25000 of them.
// Atomic additions to the result are rejected, because their order is not fixed.
// launch: block 256, grid ceil(count / 4096), then one block of 256
// bytes per element: 4 (dot 8), read once; 138 million weights take an H200 0.12 ms.
// sm_90: at most 32 registers and 2 kB of shared memory, all warps resident
#include "quads.cuh"

constexpr int BLOCK = 256;
constexpr int PIECE = 4096;

// x, y (count) in; partial (pieces) out. `term` maps two elements to the term of the sum.
template <class Term>
__device__ __forceinline__ void sum_piece(const float* x, const float* y, float* partial,
                                          int64_t count, Term term) {
    SHARED(scratch, float[BLOCK / WARP]);
    float total = 0.0f;
#pragma unroll
    for (int round = 0; round < PIECE / (BLOCK * QUAD); ++round) {
        const int64_t first =
            static_cast<int64_t>(blockIdx.x) * PIECE + QUAD * (round * BLOCK + threadIdx.x);
        float a[QUAD], b[QUAD];
        load_quad(x, first, count, a);
        load_quad(y, first, count, b);
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            total += term(a[i], b[i]);
        }
    }
    total = block_sum<BLOCK>(total, scratch);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = total;
    }
}

// x (count) in; partial (ceil(count / PIECE)) out
extern "C" __global__ void __launch_bounds__(BLOCK)
    asum_pieces(const float* x, float* partial, int64_t count) {
    sum_piece(x, x, partial, count, [](float a, float) { return fabsf(a); });
}

// x, y (count) in; partial (ceil(count / PIECE)) out. The sum of squares is dot(x, x): the second
// load of an element is from the L1 cache.
extern "C" __global__ void __launch_bounds__(BLOCK)
    dot_pieces(const float* x, const float* y, float* partial, int64_t count) {
    sum_piece(x, y, partial, count, [](float a, float b) { return a * b; });
}

// partial (pieces) in; total (1) out; one block
extern "C" __global__ void __launch_bounds__(BLOCK)
    sum_up(const float* partial, double* total, int64_t pieces) {
    SHARED(sums, double[BLOCK]);
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < pieces; i += BLOCK) {
        sum += partial[i];
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        total[0] = sums[0];
    }
}
