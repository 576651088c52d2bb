// The core that GEMM, convolution and Winograd share: a block computes one tile of
// C = A B, ROWS x COLS, over a range of the depth (the dimension that is summed).
//
// Each thread holds 8 x 8 sums in registers. The depth goes by in slabs of 8 through shared memory,
// two of them: while a slab is multiplied, the next one is on its way from global memory to
// registers, so one barrier a slab is enough. A warp computes 32 x 64: its 4 x 8 threads read
// 4 + 8 different vectors of 16 bytes for 64 multiply-adds each, without a bank conflict.
//
// Where the numbers come from is the loaders' matter. A loader has
//     COUNT                                    elements it stages for this thread and slab
//     walk                                     which elements those are (Walk)
//     fetch(slab, end, float (&staged)[COUNT]) element i is (walk.index + i * walk.index_step,
//                                              slab + walk.depth + i * walk.depth_step);
//                                              0 beyond the matrix and from depth `end` on
#pragma once

#include "quads.cuh"

constexpr int SLAB = 8;
constexpr int SUMS = 8;
// Rows of slabs are padded by 16 bytes: elements that differ in depth then fall into other banks.
constexpr int SLAB_PAD = 4;

template <int ROWS, int COLS>
struct Tile {
    static constexpr int THREADS = ROWS * COLS / (SUMS * SUMS);
};

template <int ROWS, int COLS>
struct __align__(16) Slabs {
    float a[2][SLAB][ROWS + SLAB_PAD];
    float b[2][SLAB][COLS + SLAB_PAD];
};

// Which elements of a slab a thread moves: neighbours along the depth or along the other
// dimension, whichever lies together in memory.
template <int SIDE, int DEPTH, int THREADS>
struct Walk {
    static constexpr int COUNT = SIDE * DEPTH / THREADS;
    int index, index_step, depth, depth_step;

    __device__ __forceinline__ explicit Walk(bool along_depth) {
        const int thread = threadIdx.x;
        index = along_depth ? thread / DEPTH : thread % SIDE;
        depth = along_depth ? thread % DEPTH : thread / SIDE;
        index_step = along_depth ? THREADS / DEPTH : 0;
        depth_step = along_depth ? 0 : THREADS / SIDE;
    }
};

// A tile of a matrix with any strides.
template <int SIDE, int DEPTH, int THREADS>
struct MatrixLoader {
    static constexpr int COUNT = SIDE * DEPTH / THREADS;
    Walk<SIDE, DEPTH, THREADS> walk;
    const float* element;
    int64_t step, depth_stride;
    int left;

    // matrix (size, depth) by its strides; the tile begins at `first`
    __device__ __forceinline__ MatrixLoader(const float* matrix, int first, int size,
                                            int64_t index_stride, int64_t depth_stride_)
        : walk(depth_stride_ == 1), depth_stride(depth_stride_), left(size - first - walk.index) {
        element = matrix + (first + walk.index) * index_stride + walk.depth * depth_stride;
        step = walk.index_step * index_stride + walk.depth_step * depth_stride;
    }

    __device__ __forceinline__ void fetch(int slab, int end, float (&staged)[COUNT]) {
        const float* at = element + slab * depth_stride;
#pragma unroll
        for (int i = 0; i < COUNT; ++i, at += step) {
            const bool inside =
                i * walk.index_step < left && slab + walk.depth + i * walk.depth_step < end;
            staged[i] = inside ? __ldg(at) : 0.0f;
        }
    }
};

template <class Loader, int SIDE>
__device__ __forceinline__ void put(const Loader& loader, const float (&staged)[Loader::COUNT],
                                    float (&slab)[SLAB][SIDE + SLAB_PAD]) {
#pragma unroll
    for (int i = 0; i < Loader::COUNT; ++i) {
        slab[loader.walk.depth + i * loader.walk.depth_step]
            [loader.walk.index + i * loader.walk.index_step] = staged[i];
    }
}

// The first row and column of this thread's sums: rows `row` to `row + 3` and 16 below them, columns
// `col` to `col + 3` and 32 to the right.
template <int COLS>
__device__ __forceinline__ int first_row() {
    return threadIdx.x / WARP / (COLS / 64) * 32 + threadIdx.x % WARP / 8 * 4;
}
template <int COLS>
__device__ __forceinline__ int first_col() {
    return threadIdx.x / WARP % (COLS / 64) * 64 + threadIdx.x % 8 * 4;
}

__device__ __forceinline__ void read_slab(const float* row, int apart, float (&value)[SUMS]) {
    const float4 low = *reinterpret_cast<const float4*>(row);
    const float4 high = *reinterpret_cast<const float4*>(row + apart);
    value[0] = low.x;
    value[1] = low.y;
    value[2] = low.z;
    value[3] = low.w;
    value[4] = high.x;
    value[5] = high.y;
    value[6] = high.z;
    value[7] = high.w;
}

// sums = A B over the depths `begin` to `end`
template <int ROWS, int COLS, class LoadA, class LoadB>
__device__ __forceinline__ void tile_product(LoadA& load_a, LoadB& load_b, int begin, int end,
                                             float (&sums)[SUMS][SUMS]) {
    SHARED(slabs, Slabs<ROWS, COLS>);
    const int row = first_row<COLS>(), col = first_col<COLS>();
    float a[LoadA::COUNT], b[LoadB::COUNT];
#pragma unroll
    for (int i = 0; i < SUMS * SUMS; ++i) {
        sums[i / SUMS][i % SUMS] = 0.0f;
    }
    load_a.fetch(begin, end, a);
    load_b.fetch(begin, end, b);
    put<LoadA, ROWS>(load_a, a, slabs.a[0]);
    put<LoadB, COLS>(load_b, b, slabs.b[0]);
    __syncthreads();
    int now = 0;
    for (int slab = begin; slab < end; slab += SLAB) {
        const bool more = slab + SLAB < end;
        if (more) {
            load_a.fetch(slab + SLAB, end, a);
            load_b.fetch(slab + SLAB, end, b);
        }
#pragma unroll
        for (int d = 0; d < SLAB; ++d) {
            float left[SUMS], right[SUMS];
            read_slab(&slabs.a[now][d][row], 16, left);
            read_slab(&slabs.b[now][d][col], 32, right);
#pragma unroll
            for (int i = 0; i < SUMS * SUMS; ++i) {
                sums[i / SUMS][i % SUMS] += left[i / SUMS] * right[i % SUMS];
            }
        }
        now ^= 1;
        if (more) {
            put<LoadA, ROWS>(load_a, a, slabs.a[now]);
            put<LoadB, COLS>(load_b, b, slabs.b[now]);
        }
        __syncthreads();
    }
}

// Hand over the sums by fours of a row: store(row in the tile, first column in the tile, quad).
template <int COLS, class Store>
__device__ __forceinline__ void for_quads(const float (&sums)[SUMS][SUMS], Store store) {
    const int row = first_row<COLS>(), col = first_col<COLS>();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            const float(&line)[SUMS] = sums[i];
            const float quad[QUAD] = {line[4 * half], line[4 * half + 1], line[4 * half + 2],
                                      line[4 * half + 3]};
            store(row + i / 4 * 16 + i % 4, col + half * 32, quad);
        }
    }
}
