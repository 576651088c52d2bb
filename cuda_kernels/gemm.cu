// gemm.cu -- C = alpha op(A) op(B) + beta C, alone or a batch of them; InnerProduct and Winograd
// v1  one thread a result, both operands from global memory: bound by the first cache, about a
//     tenth of the peak
// v2  tiles of 32x32 in shared memory, a result a thread: two shared reads a multiply-add
// v3  128x128 tiles, 8x8 sums a thread, slabs of 8 double-buffered (tile_product.cuh): 4 shared
//     reads of 16 bytes for 64 multiply-adds                                        <- launched
// v4  the same with the depth cut into splits, for products with few tiles (fc6 at batch 64 has 32):
//     partial sums in a workspace, added in their order by gemm_sum_splits          <- launched
// Every transpose is a matter of strides: one kernel serves all four.
// launch: 256 threads for 128x128, 128 for 64x128, 64 for 64x64; grid (row tiles * column tiles, 1,
// batch * splits). Row tiles come first, so that blocks that run together share columns of B.
// roofline on an H200 (67 TFLOP/s, 4.8 TB/s): fc6 forward at batch 64 reads 411 MB of weights,
// 0.09 ms, and does 13 GFLOP, 0.20 ms; Winograd's products are bound by arithmetic from 64
// channels on.
#include "tile_product.cuh"

constexpr int SUM_BLOCK = 256;

// a (m, k) by a_row, a_depth; b (k, n) by b_depth, b_col; c (m, n) by c_row. One of a batch lies
// *_batch after the other. With splits, split s of batch i writes its part of the depth (`chunk`,
// a multiple of SLAB) to matrix i * splits + s of c.
template <int ROWS, int COLS>
__device__ __forceinline__ void gemm_tile(const float* a, const float* b, float* c, int m, int n,
                                          int k, int64_t a_row, int64_t a_depth, int64_t b_depth,
                                          int64_t b_col, int64_t c_row, int64_t a_batch,
                                          int64_t b_batch, int64_t c_batch, int splits, int chunk,
                                          float alpha, float beta) {
    const int row_tiles = ceil_div(m, ROWS);
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    const int batch = blockIdx.z / splits, begin = blockIdx.z % splits * chunk;
    const int end = min(k, begin + chunk);
    constexpr int THREADS = Tile<ROWS, COLS>::THREADS;
    MatrixLoader<ROWS, SLAB, THREADS> load_a(a + batch * a_batch, row0, m, a_row, a_depth);
    MatrixLoader<COLS, SLAB, THREADS> load_b(b + batch * b_batch, col0, n, b_col, b_depth);
    float sums[SUMS][SUMS];
    tile_product<ROWS, COLS>(load_a, load_b, begin, end, sums);
    c += blockIdx.z * c_batch;
    for_quads<COLS>(sums, [=](int row, int col, const float(&quad)[QUAD]) {
        if (row0 + row >= m) {
            return;
        }
        float* const line = c + (row0 + row) * c_row;
        float old[QUAD] = {}, result[QUAD];
        if (beta != 0.0f) {
            load_quad(line, col0 + col, n, old);
        }
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            result[i] = alpha * quad[i] + (beta != 0.0f ? beta * old[i] : 0.0f);
        }
        store_quad(line, col0 + col, n, result);
    });
}

extern "C" __global__ void __launch_bounds__(256, 2)
gemm_128x128(const float* a, const float* b, float* c, int m, int n, int k, int64_t a_row,
             int64_t a_depth, int64_t b_depth, int64_t b_col, int64_t c_row, int64_t a_batch,
             int64_t b_batch, int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    gemm_tile<128, 128>(a, b, c, m, n, k, a_row, a_depth, b_depth, b_col, c_row, a_batch, b_batch,
                        c_batch, splits, chunk, alpha, beta);
}

extern "C" __global__ void __launch_bounds__(128, 4)
gemm_64x128(const float* a, const float* b, float* c, int m, int n, int k, int64_t a_row,
            int64_t a_depth, int64_t b_depth, int64_t b_col, int64_t c_row, int64_t a_batch,
            int64_t b_batch, int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    gemm_tile<64, 128>(a, b, c, m, n, k, a_row, a_depth, b_depth, b_col, c_row, a_batch, b_batch,
                       c_batch, splits, chunk, alpha, beta);
}

extern "C" __global__ void __launch_bounds__(64, 8)
gemm_64x64(const float* a, const float* b, float* c, int m, int n, int k, int64_t a_row,
           int64_t a_depth, int64_t b_depth, int64_t b_col, int64_t c_row, int64_t a_batch,
           int64_t b_batch, int64_t c_batch, int splits, int chunk, float alpha, float beta) {
    gemm_tile<64, 64>(a, b, c, m, n, k, a_row, a_depth, b_depth, b_col, c_row, a_batch, b_batch,
                      c_batch, splits, chunk, alpha, beta);
}

// partial (splits, count) in; c (count) in (where beta is not 0) and out
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
