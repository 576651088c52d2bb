// bias.cu -- y += bias along channels, and its gradient, the sum of dy over all other dimensions
// forward
// v1  four elements per thread                                   <- launched (after InnerProduct)
// v2  in the convolution kernels, which add it to the sums in registers: no separate pass
// backward, inner > 1 (convolution)
// v1  one block per channel over all images: 64 blocks for conv1_1, half of an H200 idle
// v2  stage 1: a block sums 8192 elements of a channel; stage 2: a warp adds the partial sums
//                                                                                   <- launched
// backward, inner = 1 (InnerProduct): a block computes 32 channels, each of its 8 warps an eighth
// of the rows, so that reads are coalesced                                          <- launched
// launch: forward block 256, grid ceil(count / 1024); pieces block 256, grid (pieces, C); sums
// block 256, grid ceil(C / 8); rows block (32, 8), grid ceil(C / 32)
// bytes per element: forward 8, backward 4; bound by memory: conv1_2 of net D at batch 64, 0.82 GB,
// 0.17 ms on an H200 at 4.8 TB/s.
// sm_90: at most 40 registers and 1 kB of shared memory, at least 3/4 of the warps resident
#include "quads.cuh"

constexpr int BLOCK = 256;
constexpr int PIECE = 8192;
constexpr int ROW_LANES = 8;
constexpr int ROWS_BLOCK = 256;

// bias (C,) in; y (outer, C, inner) in and out. count = outer * C * inner
extern "C" __global__ void __launch_bounds__(BLOCK)
    bias_forward(const float* bias, float* y, int64_t count, int C, int inner) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(y, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        value[i] += __ldg(bias + (first + i) / inner % C);
    }
    store_quad(y, first, count, value);
}

// dy (outer, C, inner) in; partial (C, pieces) out: piece j begins at element j * PIECE of the
// channel's outer * inner
extern "C" __global__ void __launch_bounds__(BLOCK)
    bias_backward_pieces(const float* dy, float* partial, int outer, int C, int inner) {
    SHARED(scratch, float[BLOCK / WARP]);
    const int c = blockIdx.y;
    const int64_t length = static_cast<int64_t>(outer) * inner;
    float sum = 0.0f;
#pragma unroll 4
    for (int round = 0; round < PIECE / (BLOCK * QUAD); ++round) {
        const int64_t first =
            static_cast<int64_t>(blockIdx.x) * PIECE + QUAD * (round * BLOCK + threadIdx.x);
        if (first >= length) {
            break;
        }
        const int64_t image = first / inner;
        const int within = first - image * inner;
        if (within + QUAD <= inner) {
            float value[QUAD];
            load_quad(dy + (image * C + c) * inner, within, inner, value);
            sum += (value[0] + value[1]) + (value[2] + value[3]);
            continue;
        }
        for (int64_t i = first; i < min(first + QUAD, length); ++i) {
            sum += __ldg(dy + (i / inner * C + c) * inner + i % inner);
        }
    }
    sum = block_sum<BLOCK>(sum, scratch);
    if (threadIdx.x == 0) {
        partial[static_cast<int64_t>(c) * gridDim.x + blockIdx.x] = sum;
    }
}

// partial (C, pieces) in; db (C,) in and out
extern "C" __global__ void __launch_bounds__(BLOCK)
    bias_backward_sums(const float* partial, float* db, int C, int pieces) {
    const int c = global_thread() / WARP, lane = threadIdx.x % WARP;
    float sum = 0.0f;
    for (int i = lane; c < C && i < pieces; i += WARP) {
        sum += __ldg(partial + static_cast<int64_t>(c) * pieces + i);
    }
    sum = warp_sum(sum);
    if (c < C && lane == 0) {
        db[c] += sum;
    }
}

// dy (rows, C) in; db (C,) in and out
extern "C" __global__ void __launch_bounds__(ROWS_BLOCK)
    bias_backward_rows(const float* dy, float* db, int rows, int C) {
    SHARED(sums, float[ROW_LANES][WARP]);
    const int c = blockIdx.x * WARP + threadIdx.x;
    float sum = 0.0f;
    for (int row = threadIdx.y; c < C && row < rows; row += ROW_LANES) {
        sum += __ldg(dy + static_cast<int64_t>(row) * C + c);
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && c < C) {
        float total = 0.0f;
        for (int i = 0; i < ROW_LANES; ++i) {
            total += sums[i][threadIdx.x];
        }
        db[c] += total;
    }
}
