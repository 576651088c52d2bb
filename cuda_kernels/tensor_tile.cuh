// Matrix products on tensor cores: a block computes a tile of C = A B in fp32, from operands packed
// in tf32 or bf16. A warp computes 64 x 64, so that each fragment it reads from shared memory is
// used by four or eight instructions.
//
// Operands are copied in chunks of 16 bytes (4 tf32 or 8 bf16 numbers) by asynchronous copies in
// three stages: while one stage is multiplied, the next two are copied. A stage has 64 bytes of
// depth: two steps of mma.sync in either precision.
//
// Two layouts of a stage, by the dimension that is contiguous in memory:
//     Rows    [side][4 chunks along the depth]       convolution forward and to the data
//     Depths  [depth][chunks along the side]         gradient of the weights
// Chunks are swizzled, so that neither copies nor loads of fragments have bank conflicts.
#pragma once

#include "async_copy.cuh"
#include "common.cuh"
#include "mma.cuh"

constexpr int STAGES = 3;
constexpr int CHUNK_BYTES = 16;
constexpr int ROW_CHUNKS = 4;
constexpr int WARP_SIDE = 64;
constexpr int M_TILES = WARP_SIDE / 16, N_TILES = WARP_SIDE / 8;

// The sums of a warp: tile (m, n) is 16 x 8, in the layout of mma.cuh.
using Sums = float[M_TILES][N_TILES][4];
// Operands of one step of a warp.
using FragmentsA = uint32_t[M_TILES][4];
using FragmentsB = uint32_t[N_TILES][2];

struct Tf32 {
    static constexpr int CHUNK = 4;   // numbers in a chunk
    static constexpr int DEPTH = 16;  // numbers in the depth of a stage
    static constexpr int PER_WORD = 1;

    static __device__ __forceinline__ uint32_t pack(const float* values) {
        return to_tf32(values[0]);
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        mma_tf32_16x8x8(d, a, b);
    }
};

struct Bf16 {
    static constexpr int CHUNK = 8;
    static constexpr int DEPTH = 32;
    static constexpr int PER_WORD = 2;

    static __device__ __forceinline__ uint32_t pack(const float* values) {
        return pack_bf16(values[0], values[1]);
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        mma_bf16_16x8x16(d, a, b);
    }
};

template <int ROWS, int COLS>
struct TensorTile {
    static constexpr int THREADS = ROWS * COLS / (WARP_SIDE * WARP_SIDE) * WARP;
    static constexpr int WARPS_ACROSS = COLS / WARP_SIDE;
};

// First row and column of the warp's part of the tile.
template <int COLS>
__device__ __forceinline__ int warp_row() {
    return threadIdx.x / WARP / (COLS / WARP_SIDE) * WARP_SIDE;
}
template <int COLS>
__device__ __forceinline__ int warp_col() {
    return threadIdx.x / WARP % (COLS / WARP_SIDE) * WARP_SIDE;
}

// A stage of one operand in the layout Rows.
template <int SIDE>
struct __align__(128) Rows {
    uint4 chunks[SIDE][ROW_CHUNKS];

    __device__ __forceinline__ uint4* at(int row, int chunk) {
        return &chunks[row][chunk ^ (row / 2 % ROW_CHUNKS)];
    }
};

// A stage of one operand in the layout Depths.
template <class P, int SIDE>
struct __align__(128) Depths {
    static constexpr int CHUNKS = SIDE / P::CHUNK;
    uint4 chunks[P::DEPTH][CHUNKS];

    __device__ __forceinline__ uint4* at(int depth, int chunk) {
        // tf32 is read in words, 4 depths x 8 numbers at a time; bf16 in matrices of 8 depths.
        return &chunks[depth][chunk ^ (P::PER_WORD == 1 ? depth % 4 * 2 : depth % 8)];
    }
    __device__ __forceinline__ uint32_t word(int depth, int column) {
        return reinterpret_cast<const uint32_t*>(at(depth, column / 4))[column % 4];
    }
};

// Fragments of a step (0 or 1) of a stage, for the 64 rows or columns from `first` on.
template <int SIDE>
__device__ __forceinline__ void read_a(Rows<SIDE>& stage, int first, int step,
                                       FragmentsA& fragments) {
    const int lane = threadIdx.x % WARP, row = first + lane % 16, chunk = 2 * step + lane / 16;
#pragma unroll
    for (int m = 0; m < M_TILES; ++m) {
        load_matrices(fragments[m], stage.at(row + 16 * m, chunk));
    }
}

template <int SIDE>
__device__ __forceinline__ void read_b(Rows<SIDE>& stage, int first, int step,
                                       FragmentsB& fragments) {
    const int lane = threadIdx.x % WARP;
    const int col = first + lane / 16 * 8 + lane % 8, chunk = 2 * step + lane / 8 % 2;
#pragma unroll
    for (int n = 0; n < N_TILES; n += 2) {
        uint32_t pair[4];
        load_matrices(pair, stage.at(col + 8 * n, chunk));
        fragments[n][0] = pair[0];
        fragments[n][1] = pair[1];
        fragments[n + 1][0] = pair[2];
        fragments[n + 1][1] = pair[3];
    }
}

template <int SIDE>
__device__ __forceinline__ void read_a(Depths<Bf16, SIDE>& stage, int first, int step,
                                       FragmentsA& fragments) {
    const int lane = threadIdx.x % WARP;
    const int depth = 16 * step + lane / 16 * 8 + lane % 8, chunk = first / 8 + lane / 8 % 2;
#pragma unroll
    for (int m = 0; m < M_TILES; ++m) {
        load_matrices_transposed(fragments[m], stage.at(depth, chunk + 2 * m));
    }
}

template <int SIDE>
__device__ __forceinline__ void read_b(Depths<Bf16, SIDE>& stage, int first, int step,
                                       FragmentsB& fragments) {
    const int lane = threadIdx.x % WARP;
    const int depth = 16 * step + lane % 16, chunk = first / 8 + lane / 16;
#pragma unroll
    for (int n = 0; n < N_TILES; n += 2) {
        uint32_t pair[4];
        load_matrices_transposed(pair, stage.at(depth, chunk + n));
        fragments[n][0] = pair[0];
        fragments[n][1] = pair[1];
        fragments[n + 1][0] = pair[2];
        fragments[n + 1][1] = pair[3];
    }
}

// There is no transposing load of 32-bit numbers: they are read in words, without bank conflicts.
template <int SIDE>
__device__ __forceinline__ void read_a(Depths<Tf32, SIDE>& stage, int first, int step,
                                       FragmentsA& fragments) {
    const int lane = threadIdx.x % WARP, row = first + lane / 4, depth = 8 * step + lane % 4;
#pragma unroll
    for (int m = 0; m < M_TILES; ++m) {
        fragments[m][0] = stage.word(depth, row + 16 * m);
        fragments[m][1] = stage.word(depth, row + 16 * m + 8);
        fragments[m][2] = stage.word(depth + 4, row + 16 * m);
        fragments[m][3] = stage.word(depth + 4, row + 16 * m + 8);
    }
}

template <int SIDE>
__device__ __forceinline__ void read_b(Depths<Tf32, SIDE>& stage, int first, int step,
                                       FragmentsB& fragments) {
    const int lane = threadIdx.x % WARP, col = first + lane / 4, depth = 8 * step + lane % 4;
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
        fragments[n][0] = stage.word(depth, col + 8 * n);
        fragments[n][1] = stage.word(depth + 4, col + 8 * n);
    }
}

// sums = A B over `count` stages. StageA, StageB: Rows or Depths; copy_a(stage, i) and
// copy_b(stage, i) start the copies of stage i for this thread, with zeros beyond the operand.
template <class P, int COLS, class StageA, class StageB, class CopyA, class CopyB>
__device__ __forceinline__ void tensor_product(StageA (&a)[STAGES], StageB (&b)[STAGES],
                                               CopyA copy_a, CopyB copy_b, int count, Sums& sums) {
    const int row = warp_row<COLS>(), col = warp_col<COLS>();
#pragma unroll
    for (int i = 0; i < M_TILES * N_TILES * 4; ++i) {
        sums[i / 4 / N_TILES][i / 4 % N_TILES][i % 4] = 0.0f;
    }
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < count) {
            copy_a(a[stage], stage);
            copy_b(b[stage], stage);
        }
        copy_async_commit();
    }
    for (int stage = 0; stage < count; ++stage) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();  // this stage is visible to all, and all have read the previous one
        const int next = stage + STAGES - 1;
        if (next < count) {
            copy_a(a[next % STAGES], next);
            copy_b(b[next % STAGES], next);
        }
        copy_async_commit();
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            FragmentsA left;
            FragmentsB right;
            read_a(a[stage % STAGES], row, step, left);
            read_b(b[stage % STAGES], col, step, right);
#pragma unroll
            for (int i = 0; i < M_TILES * N_TILES; ++i) {
                P::mma(sums[i / N_TILES][i % N_TILES], left[i / N_TILES], right[i % N_TILES]);
            }
        }
    }
}

// Passes the sums in pairs of a row to store(row in the tile, first column in the tile, pair).
template <int COLS, class Store>
__device__ __forceinline__ void for_pairs(const Sums& sums, Store store) {
    const int lane = threadIdx.x % WARP;
    const int row = warp_row<COLS>() + lane / 4, col = warp_col<COLS>() + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < N_TILES; ++n) {
#pragma unroll
        for (int m = 0; m < M_TILES; ++m) {
            const float(&d)[4] = sums[m][n];
            store(row + 16 * m, col + 8 * n, make_float2(d[0], d[1]));
            store(row + 16 * m + 8, col + 8 * n, make_float2(d[2], d[3]));
        }
    }
}
