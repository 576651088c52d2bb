// requires: sm_80
// conv_tensor.cu -- convolution at stride 1 on tensor cores, in tf32 or bf16 with fp32 sums
// v1  a tile of 16x8 per warp, fragments directly from global memory: bound by the caches
// v2  tiles of 128 outputs x 128 positions, packed operands (conv_pack.cu), asynchronous copies in
//     three stages, warps of 64x64 (tensor_tile.cuh)                                <- launched
// v3  wgmma and the bulk copy engine (sm_90a), needed for the last third of a Hopper's rate: not
//     implemented
// The gradient of the input is the same kernel with dy and the rotated filters.
// launch: 128 threads for 128x128, 64 for 64x128; grid row tiles * position tiles
// roofline on an H200 (mma.sync runs at about two thirds of wgmma's 495 and 990 TFLOP/s): conv3_2
// of net D at batch 64, 237 GFLOP: 0.72 ms in tf32, 0.36 ms in bf16; a byte from shared memory is
// used by 16 (32) operations, and the bandwidth suffices for one byte per 11 (22) operations.
// sm_90: 237 registers (64x128 235), 49 kB (37 kB) of shared memory, 8 warps resident; no spills
#include "quads.cuh"
#include "tensor_tile.cuh"

// The sizes of a product: depth in chunks, output planes (P,Q), and the packed grid of positions.
struct TensorConv {
    const uint4 *filters, *images;
    const int* steps;
    const float* bias;
    float* y;
    int K, P, Q, pixels, chunks, down, across, image_chunks, relu;
};

// y = sums + bias at the block's outputs, in pairs of pixels.
template <int COLS>
__device__ __forceinline__ void store_outputs(const TensorConv& of, int row0, int col0,
                                              const Sums& sums) {
    const int plane = of.P * of.Q;
    for_pairs<COLS>(sums, [=](int row, int col, float2 pair) {
        const int k = row0 + row, pixel = col0 + col;
        if (k >= of.K || pixel >= of.pixels) {
            return;
        }
        const float added = of.bias == nullptr ? 0.0f : __ldg(of.bias + k);
        float values[2] = {pair.x + added, pair.y + added};
        const int n = pixel / plane, within = pixel - n * plane;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            values[i] = of.relu && values[i] <= 0.0f ? 0.0f : values[i];
        }
        float* const at = of.y + (static_cast<int64_t>(n) * of.K + k) * plane + within;
        if (within + 1 < plane && is_aligned(at, 8)) {
            *reinterpret_cast<float2*>(at) = make_float2(values[0], values[1]);
            return;
        }
        at[0] = values[0];
        if (within + 1 < plane) {
            at[1] = values[1];
        } else if (pixel + 1 < of.pixels) {  // the next image's first pixel
            at[(static_cast<int64_t>(of.K) - 1) * plane + 1] = values[1];
        }
    });
}

template <class P, int ROWS, int COLS>
__device__ __forceinline__ void conv_tensor_tile(const TensorConv& of) {
    SHARED(a, Rows<ROWS>[STAGES]);
    SHARED(b, Rows<COLS>[STAGES]);
    constexpr int THREADS = TensorTile<ROWS, COLS>::THREADS, LINES = THREADS / ROW_CHUNKS;
    const int row_tiles = ceil_div(of.K, ROWS), plane = of.P * of.Q;
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    const int line = threadIdx.x / ROW_CHUNKS, chunk = threadIdx.x % ROW_CHUNKS;
    // The first chunk of the window of each pixel of this thread, or -1 beyond the last pixel.
    int places[COLS / LINES];
#pragma unroll
    for (int i = 0; i < COLS / LINES; ++i) {
        const int pixel = col0 + line + i * LINES, n = pixel / plane, within = pixel - n * plane;
        const int p = within / of.Q, q = within - p * of.Q;
        places[i] = pixel < of.pixels ? ((n * of.down + p) * of.across + q) * of.image_chunks : -1;
    }
    auto copy_a = [&](Rows<ROWS>& stage, int number) {
        const int depth = number * ROW_CHUNKS + chunk;
#pragma unroll
        for (int i = 0; i < ROWS / LINES; ++i) {
            const int row = line + i * LINES;
            const bool there = row0 + row < of.K && depth < of.chunks;
            const int64_t at = there ? static_cast<int64_t>(row0 + row) * of.chunks + depth : 0;
            copy_async<CHUNK_BYTES>(stage.at(row, chunk), of.filters + at, there ? CHUNK_BYTES : 0);
        }
    };
    auto copy_b = [&](Rows<COLS>& stage, int number) {
        const int depth = number * ROW_CHUNKS + chunk;
        const int step = depth < of.chunks ? __ldg(of.steps + depth) : -1;
#pragma unroll
        for (int i = 0; i < COLS / LINES; ++i) {
            const bool there = step >= 0 && places[i] >= 0;
            copy_async<CHUNK_BYTES>(stage.at(line + i * LINES, chunk),
                                    of.images + (there ? places[i] + step : 0),
                                    there ? CHUNK_BYTES : 0);
        }
    };
    Sums sums;
    tensor_product<P, COLS>(a, b, copy_a, copy_b, ceil_div(of.chunks, ROW_CHUNKS), sums);
    store_outputs<COLS>(of, row0, col0, sums);
}

// filters (K, chunks), images (N, down, across, image_chunks) in chunks of 16 bytes, steps (chunks)
// the distance of each chunk from a pixel's first, bias (K,) or null in; y (N,K,P,Q) out
extern "C" __global__ void __launch_bounds__(128, 2)
    conv_tf32_128x128(const uint32_t* filters, const uint32_t* images, const int* steps,
                      const float* bias, float* y, int K, int P, int Q, int pixels, int chunks,
                      int down, int across, int image_chunks, int relu) {
    conv_tensor_tile<Tf32, 128, 128>({reinterpret_cast<const uint4*>(filters),
                                      reinterpret_cast<const uint4*>(images), steps, bias, y, K, P,
                                      Q, pixels, chunks, down, across, image_chunks, relu});
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv_tf32_64x128(const uint32_t* filters, const uint32_t* images, const int* steps,
                     const float* bias, float* y, int K, int P, int Q, int pixels, int chunks,
                     int down, int across, int image_chunks, int relu) {
    conv_tensor_tile<Tf32, 64, 128>({reinterpret_cast<const uint4*>(filters),
                                     reinterpret_cast<const uint4*>(images), steps, bias, y, K, P,
                                     Q, pixels, chunks, down, across, image_chunks, relu});
}

extern "C" __global__ void __launch_bounds__(128, 2)
    conv_bf16_128x128(const uint32_t* filters, const uint32_t* images, const int* steps,
                      const float* bias, float* y, int K, int P, int Q, int pixels, int chunks,
                      int down, int across, int image_chunks, int relu) {
    conv_tensor_tile<Bf16, 128, 128>({reinterpret_cast<const uint4*>(filters),
                                      reinterpret_cast<const uint4*>(images), steps, bias, y, K, P,
                                      Q, pixels, chunks, down, across, image_chunks, relu});
}

extern "C" __global__ void __launch_bounds__(64, 4)
    conv_bf16_64x128(const uint32_t* filters, const uint32_t* images, const int* steps,
                     const float* bias, float* y, int K, int P, int Q, int pixels, int chunks,
                     int down, int across, int image_chunks, int relu) {
    conv_tensor_tile<Bf16, 64, 128>({reinterpret_cast<const uint4*>(filters),
                                     reinterpret_cast<const uint4*>(images), steps, bias, y, K, P,
                                     Q, pixels, chunks, down, across, image_chunks, relu});
}
