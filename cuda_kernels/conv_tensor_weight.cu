// requires: sm_80
// conv_tensor_weight.cu -- the gradient of a convolution's weights at stride 1 on tensor cores
// The depth is the packed grid of positions (conv_pack.cu): dy is packed on the grid of x, with
// zeros where it has no pixel; tap (r, s) of position i reads x at
// i + r * dilation * across + s * dilation.
// v1  the depth gathered pixel by pixel from unpacked images: the integer arithmetic takes longer
//     than the products
// v2  tiles of 128 outputs x 128 weights over splits of the grid; transposing fragment loads in
//     bf16, single words in tf32 (tensor_tile.cuh); the grid's margin costs 2 % of the depth at
//     224x224 and 30 % at 14x14                                                     <- launched
// launch: as conv_tensor.cu; grid (row tiles * column tiles, splits)
// roofline on an H200: the operations of conv_tensor.cu and the margin's: conv3_2 of net D at batch
// 64, 250 GFLOP with a margin of 7 %: 0.77 ms in tf32, 0.38 ms in bf16
// sm_90: tf32 254 registers, bf16 221, 49 kB (64x128 37 kB) of shared memory, 8 warps resident;
// no spills
#include "quads.cuh"
#include "tensor_tile.cuh"

// dy_chunks, x_chunks: chunks of a position. Columns are (tap, channel): x_chunks of each tap.
struct TensorWeight {
    const uint4 *dy, *x;
    const int* shifts;
    float* partial;
    int K, columns, places, dy_chunks, x_chunks, chunk, add;
};

template <class P, int ROWS, int COLS>
__device__ __forceinline__ void weight_tensor_tile(const TensorWeight& of) {
    using StageA = Depths<P, ROWS>;
    using StageB = Depths<P, COLS>;
    SHARED(a, StageA[STAGES]);
    SHARED(b, StageB[STAGES]);
    constexpr int THREADS = TensorTile<ROWS, COLS>::THREADS;
    constexpr int LINES_A = THREADS / StageA::CHUNKS, LINES_B = THREADS / StageB::CHUNKS;
    const int row_tiles = ceil_div(of.K, ROWS);
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    const int begin = blockIdx.y * of.chunk, end = min(of.places, begin + of.chunk);

    const int a_chunk = threadIdx.x % StageA::CHUNKS, a_depth = threadIdx.x / StageA::CHUNKS;
    const bool row_there = row0 / P::CHUNK + a_chunk < of.dy_chunks;
    auto copy_a = [&](StageA& stage, int number) {
#pragma unroll
        for (int i = 0; i < P::DEPTH / LINES_A; ++i) {
            const int depth = a_depth + i * LINES_A;
            const int place = begin + number * P::DEPTH + depth;
            const bool there = row_there && place < end;
            const int64_t at =
                static_cast<int64_t>(place) * of.dy_chunks + row0 / P::CHUNK + a_chunk;
            copy_async<CHUNK_BYTES>(stage.at(depth, a_chunk), of.dy + (there ? at : 0),
                                    there ? CHUNK_BYTES : 0);
        }
    };

    const int b_chunk = threadIdx.x % StageB::CHUNKS, b_depth = threadIdx.x / StageB::CHUNKS;
    const int column = col0 / P::CHUNK + b_chunk, tap = column / of.x_chunks;
    const bool col_there = column < of.columns / P::CHUNK;
    const int shift = col_there ? __ldg(of.shifts + tap) : 0;
    auto copy_b = [&](StageB& stage, int number) {
#pragma unroll
        for (int i = 0; i < P::DEPTH / LINES_B; ++i) {
            const int depth = b_depth + i * LINES_B;
            const int place = begin + number * P::DEPTH + depth;
            // Beyond the grid dy counts as zero, but the memory there is undefined.
            const bool there = col_there && place < end && place + shift < of.places;
            const int64_t at =
                static_cast<int64_t>(place + shift) * of.x_chunks + column - tap * of.x_chunks;
            copy_async<CHUNK_BYTES>(stage.at(depth, b_chunk), of.x + (there ? at : 0),
                                    there ? CHUNK_BYTES : 0);
        }
    };

    Sums sums;
    tensor_product<P, COLS>(a, b, copy_a, copy_b, ceil_div(end - begin, P::DEPTH), sums);
    float* const split = of.partial + static_cast<int64_t>(blockIdx.y) * of.K * of.columns;
    for_pairs<COLS>(sums, [=](int row, int col, float2 pair) {
        if (row0 + row >= of.K || col0 + col >= of.columns) {
            return;  // columns are a multiple of a chunk: a pair is inside or outside
        }
        float2* const at = reinterpret_cast<float2*>(
            split + static_cast<int64_t>(row0 + row) * of.columns + col0 + col);
        const float2 old = of.add ? *at : make_float2(0.0f, 0.0f);
        *at = make_float2(old.x + pair.x, old.y + pair.y);
    });
}

// dy (places, dy_chunks), x (places, x_chunks) in chunks of 16 bytes, shifts (taps,) in places in;
// partial (splits, K, columns) out, or in and out to `add`: columns = taps * channels of a place
extern "C" __global__ void __launch_bounds__(128, 2)
    conv_weight_tf32_128x128(const uint32_t* dy, const uint32_t* x, const int* shifts,
                             float* partial, int K, int columns, int places, int dy_chunks,
                             int x_chunks, int chunk, int add) {
    weight_tensor_tile<Tf32, 128, 128>({reinterpret_cast<const uint4*>(dy),
                                        reinterpret_cast<const uint4*>(x), shifts, partial, K,
                                        columns, places, dy_chunks, x_chunks, chunk, add});
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv_weight_tf32_64x128(const uint32_t* dy, const uint32_t* x, const int* shifts,
                            float* partial, int K, int columns, int places, int dy_chunks,
                            int x_chunks, int chunk, int add) {
    weight_tensor_tile<Tf32, 64, 128>({reinterpret_cast<const uint4*>(dy),
                                       reinterpret_cast<const uint4*>(x), shifts, partial, K,
                                       columns, places, dy_chunks, x_chunks, chunk, add});
}

extern "C" __global__ void __launch_bounds__(128, 2)
    conv_weight_bf16_128x128(const uint32_t* dy, const uint32_t* x, const int* shifts,
                             float* partial, int K, int columns, int places, int dy_chunks,
                             int x_chunks, int chunk, int add) {
    weight_tensor_tile<Bf16, 128, 128>({reinterpret_cast<const uint4*>(dy),
                                        reinterpret_cast<const uint4*>(x), shifts, partial, K,
                                        columns, places, dy_chunks, x_chunks, chunk, add});
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv_weight_bf16_64x128(const uint32_t* dy, const uint32_t* x, const int* shifts,
                            float* partial, int K, int columns, int places, int dy_chunks,
                            int x_chunks, int chunk, int add) {
    weight_tensor_tile<Bf16, 64, 128>({reinterpret_cast<const uint4*>(dy),
                                       reinterpret_cast<const uint4*>(x), shifts, partial, K,
                                       columns, places, dy_chunks, x_chunks, chunk, add});
}
