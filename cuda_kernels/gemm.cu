// gemm.cu -- C = alpha op(A) op(B) + beta C, single or batched; for InnerProduct and Winograd
// v1  one result per thread, both operands from global memory: bound by the L1 cache, about a
//     tenth of the peak
// v2  tiles of 32x32 in shared memory, one result per thread: two shared reads per multiply-add
// v3  128x128 tiles, 8x8 sums per thread, slabs of 8 double-buffered (tile_product.cuh): 4 shared
//     reads of 16 bytes for 64 multiply-adds                                        <- launched
// v4  v3 with the depth divided into splits, for products with few tiles (fc6 at batch 64 has
//     32): partial sums in a workspace, added in order by gemm_sum_splits           <- launched
// Transposes differ only in their strides: one kernel computes all four.
// launch: 256 threads for 128x128, 128 for 64x128, 64 for 64x64; grid (row tiles * column tiles, 1,
// batch * splits). Row tiles vary fastest, so that concurrent blocks share columns of B.
// roofline on an H200 (67 TFLOP/s, 4.8 TB/s): fc6 forward at batch 64 reads 411 MB of weights,
// 0.09 ms, and does 13 GFLOP, 0.20 ms; Winograd's products are bound by arithmetic from 64
// channels on.
// sm_90: 128x128 128 registers, 16.9 kB of shared memory, 16 warps resident; 64x128 147, 12.8 kB;
// 64x64 156, 8.7 kB, 12 warps each; no spills; 512 of about 610 instructions of a slab are
// multiply-adds: 82 % of the peak
#include "tile_product.cuh"

constexpr int SUM_BLOCK = 256;

// Operands by their strides: a (m, k), b (k, n), c (m, n) with rows c_row apart; the matrices of a
// batch are *_batch apart. With splits, split s of batch i writes the product of its part of the
// depth (`chunk`, a multiple of SLAB) to matrix i * splits + s of c.
struct Gemm {
    const float *a, *b;
    float* c;
    int m, n, k, a_row, a_depth, b_depth, b_col, c_row;
    int64_t c_batch;
    int splits, chunk;
    float alpha, beta;
};

// ALONG_A, ALONG_B: whether the operand is contiguous along the depth.
template <int ROWS, int COLS, bool ALONG_A, bool ALONG_B>
__device__ __forceinline__ void gemm_sums(const Gemm& of, int row0, int col0,
                                          Slabs<ROWS, COLS>& slabs, float (&sums)[SUMS][SUMS]) {
    constexpr int THREADS = Tile<ROWS, COLS>::THREADS;
    const int begin = blockIdx.z % of.splits * of.chunk, end = min(of.k, begin + of.chunk);
    MatrixLoader<Walk<ROWS, SLAB, THREADS, ALONG_A>> a(of.a, row0, of.m, of.a_row,
                                                       ALONG_A ? 1 : of.a_depth, begin, end);
    MatrixLoader<Walk<COLS, SLAB, THREADS, ALONG_B>> b(of.b, col0, of.n, of.b_col,
                                                       ALONG_B ? 1 : of.b_depth, begin, end);
    tile_product<ROWS, COLS>(slabs, a, b, ceil_div(end - begin, SLAB), sums);
}

template <int ROWS, int COLS>
__device__ __forceinline__ void gemm_tile(const Gemm& of) {
    SHARED(slabs, Slabs<ROWS, COLS>);
    const int row_tiles = ceil_div(of.m, ROWS);
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    float sums[SUMS][SUMS];
    if (of.a_depth == 1 && of.b_depth == 1) {
        gemm_sums<ROWS, COLS, true, true>(of, row0, col0, slabs, sums);
    } else if (of.a_depth == 1) {
        gemm_sums<ROWS, COLS, true, false>(of, row0, col0, slabs, sums);
    } else if (of.b_depth == 1) {
        gemm_sums<ROWS, COLS, false, true>(of, row0, col0, slabs, sums);
    } else {
        gemm_sums<ROWS, COLS, false, false>(of, row0, col0, slabs, sums);
    }
    const int tile = again(blockIdx.x), tiles = ceil_div(again(of.m), ROWS);
    const int top = tile % tiles * ROWS, left = tile / tiles * COLS;
    float* const c = of.c + again(blockIdx.z) * of.c_batch;
    for_quads<COLS>(sums, [=](int row, int col, const float (&quad)[QUAD]) {
        if (top + row >= of.m) {
            return;
        }
        float* const line = c + static_cast<int64_t>(top + row) * of.c_row;
        float old[QUAD] = {}, result[QUAD];
        if (of.beta != 0.0f) {
            load_quad(line, left + col, of.n, old);
        }
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            result[i] = of.alpha * quad[i] + (of.beta != 0.0f ? of.beta * old[i] : 0.0f);
        }
        store_quad(line, left + col, of.n, result);
    });
}

extern "C" __global__ void __launch_bounds__(256, 2)
    gemm_128x128(const float* a, const float* b, float* c, int m, int n, int k, int a_row,
                 int a_depth, int b_depth, int b_col, int c_row, int64_t a_batch, int64_t b_batch,
                 int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    const int64_t batch = blockIdx.z / splits;
    gemm_tile<128, 128>({a + batch * a_batch, b + batch * b_batch, c, m, n, k, a_row, a_depth,
                         b_depth, b_col, c_row, c_batch, splits, chunk, alpha, beta});
}

extern "C" __global__ void __launch_bounds__(128, 3)
    gemm_64x128(const float* a, const float* b, float* c, int m, int n, int k, int a_row,
                int a_depth, int b_depth, int b_col, int c_row, int64_t a_batch, int64_t b_batch,
                int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    const int64_t batch = blockIdx.z / splits;
    gemm_tile<64, 128>({a + batch * a_batch, b + batch * b_batch, c, m, n, k, a_row, a_depth,
                        b_depth, b_col, c_row, c_batch, splits, chunk, alpha, beta});
}

extern "C" __global__ void __launch_bounds__(64, 6)
    gemm_64x64(const float* a, const float* b, float* c, int m, int n, int k, int a_row,
               int a_depth, int b_depth, int b_col, int c_row, int64_t a_batch, int64_t b_batch,
               int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    const int64_t batch = blockIdx.z / splits;
    gemm_tile<64, 64>({a + batch * a_batch, b + batch * b_batch, c, m, n, k, a_row, a_depth,
                       b_depth, b_col, c_row, c_batch, splits, chunk, alpha, beta});
}

// partial (splits, count) in; c (count) in (if beta is not 0) and out
extern "C" __global__ void __launch_bounds__(SUM_BLOCK)
    gemm_sum_splits(const float* partial, float* c, int64_t count, int splits, float alpha,
                    float beta) {
    const int64_t first = QUAD * global_thread();
    float total[QUAD] = {}, part[QUAD], old[QUAD] = {};
    for (int split = 0; split < splits; ++split) {
        load_quad(partial + split * count, first, count, part);
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            total[i] += part[i];
        }
    }
    if (beta != 0.0f) {
        load_quad(c, first, count, old);
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        total[i] = alpha * total[i] + (beta != 0.0f ? beta * old[i] : 0.0f);
    }
    store_quad(c, first, count, total);
}
