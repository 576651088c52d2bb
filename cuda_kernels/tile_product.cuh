// The matrix product that GEMM, convolution and Winograd share: a block computes one tile of
// C = A B, ROWS x COLS, over a range of the depth (the dimension of the sum).
//
// Each thread has 8 x 8 sums in registers. The depth is read in slabs of 8 into two buffers in
// shared memory: while a slab is multiplied, the next one is loaded from global memory to
// registers, so one barrier per slab suffices. A warp computes 32 x 64: its 4 x 8 threads read
// 4 + 8 different vectors of 16 bytes for 64 multiply-adds each, without bank conflicts.
//
// Loaders read the operands. A loader has
//     Walk                                     the elements of a slab that this thread loads
//     fetch(slab, end, float (&staged)[COUNT]) element i is (index() + i * INDEX_STEP,
//                                              slab + depth() + i * DEPTH_STEP);
//                                              0 beyond the matrix and from depth `end` on
#pragma once

#include "quads.cuh"

constexpr int SLAB = 8;
constexpr int SUMS = 8;
// Rows of slabs are padded by 16 bytes, so that elements of different depths are in other banks.
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

// The elements of a slab that a thread loads: neighbours along the dimension that is contiguous in
// memory, the depth or the other one.
template <int SIDE, int DEPTH, int THREADS, bool ALONG_DEPTH>
struct Walk {
    static constexpr int COUNT = SIDE * DEPTH / THREADS;
    static constexpr int INDEX_STEP = ALONG_DEPTH ? THREADS / DEPTH : 0;
    static constexpr int DEPTH_STEP = ALONG_DEPTH ? 0 : THREADS / SIDE;
    static_assert(ALONG_DEPTH || THREADS >= SIDE, "a thread stays in its column");

    static __device__ __forceinline__ int index() {
        return ALONG_DEPTH ? threadIdx.x / DEPTH : threadIdx.x % SIDE;
    }
    static __device__ __forceinline__ int depth() {
        return ALONG_DEPTH ? threadIdx.x % DEPTH : threadIdx.x / SIDE;
    }
};

// A tile of a matrix with any strides; the stride along the walk should be 1.
template <class Walk_>
struct MatrixLoader {
    using Walk = Walk_;
    const float* element;
    int step, depth_stride, left, depths_left;

    // matrix (size, depth) by its strides; the tile begins at `first`
    __device__ __forceinline__ MatrixLoader(const float* matrix, int first, int size,
                                            int index_stride, int depth_stride_, int begin, int end)
        : depth_stride(depth_stride_),
          left(size - first - Walk::index()),
          depths_left(end - begin - Walk::depth()) {
        element = matrix + static_cast<int64_t>(first + Walk::index()) * index_stride +
                  static_cast<int64_t>(begin + Walk::depth()) * depth_stride;
        step = Walk::INDEX_STEP * index_stride + Walk::DEPTH_STEP * depth_stride;
    }

    __device__ __forceinline__ void fetch(float (&staged)[Walk::COUNT]) {
        const float* at = element;
#pragma unroll
        for (int i = 0; i < Walk::COUNT; ++i, at += step) {
            const bool inside = i * Walk::INDEX_STEP < left && i * Walk::DEPTH_STEP < depths_left;
            staged[i] = inside ? __ldg(at) : 0.0f;
        }
        element += SLAB * depth_stride;
        depths_left -= SLAB;
    }
};

template <class Walk, int SIDE>
__device__ __forceinline__ void put(const float (&staged)[Walk::COUNT],
                                    float (&slab)[SLAB][SIDE + SLAB_PAD]) {
#pragma unroll
    for (int i = 0; i < Walk::COUNT; ++i) {
        slab[Walk::depth() + i * Walk::DEPTH_STEP][Walk::index() + i * Walk::INDEX_STEP] =
            staged[i];
    }
}

// The first row and column of this thread's sums: rows `row` to `row + 3` and 16 below them,
// columns `col` to `col + 3` and 32 to the right.
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
__device__ __forceinline__ void tile_product(Slabs<ROWS, COLS>& slabs, LoadA load_a, LoadB load_b,
                                             int steps, float (&sums)[SUMS][SUMS]) {
    const int row = first_row<COLS>(), col = first_col<COLS>();
    float a[LoadA::Walk::COUNT], b[LoadB::Walk::COUNT];
#pragma unroll
    for (int i = 0; i < SUMS * SUMS; ++i) {
        sums[i / SUMS][i % SUMS] = 0.0f;
    }
    load_a.fetch(a);
    load_b.fetch(b);
    put<typename LoadA::Walk, ROWS>(a, slabs.a[0]);
    put<typename LoadB::Walk, COLS>(b, slabs.b[0]);
    __syncthreads();
    int now = 0;
    for (int left = steps - 1; left >= 0; --left) {
        const bool more = left > 0;
        if (more) {
            load_a.fetch(a);
            load_b.fetch(b);
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
            put<typename LoadA::Walk, ROWS>(a, slabs.a[now]);
            put<typename LoadB::Walk, COLS>(b, slabs.b[now]);
        }
        __syncthreads();
    }
}

// A value that the compiler must compute again after this point: kept during the product, it would
// occupy a register that the product needs.
__device__ __forceinline__ int again(int value) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(value));
#endif
    return value;
}

// Passes the sums in fours of a row to store(row in the tile, first column in the tile, quad).
template <int COLS, class Store>
__device__ __forceinline__ void for_quads(const float (&sums)[SUMS][SUMS], Store store) {
    const int row = first_row<COLS>(), col = first_col<COLS>();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            const float (&line)[SUMS] = sums[i];
            const float quad[QUAD] = {line[4 * half], line[4 * half + 1], line[4 * half + 2],
                                      line[4 * half + 3]};
            store(row + i / 4 * 16 + i % 4, col + half * 32, quad);
        }
    }
}
