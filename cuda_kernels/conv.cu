// conv.cu -- convolution as an implicit matrix product: any kernel, stride, pad, dilation, group
// v1  one output per thread, all operands from global memory: a few percent of the peak
// v2  the column matrix in memory (im2col), then GEMM: writes and reads nine times the input
// v3  implicit: tiles of 128 output channels x 128 pixels, whose columns are gathered from the
//     image while they are staged (tile_product.cuh, conv_loaders.cuh)              <- launched
// v4  a 1x1 convolution as one GEMM per image: rejected, since a tile would not extend over images
//     (a 14x14 plane fills 1.5 tiles of 128 columns, so a quarter of the work would be wasted)
// The gradient of the input is a convolution of dy with the filters rotated by 180 degrees
// (conv_turn_filters); a stride of the forward pass becomes holes in dy.
// launch: as gemm.cu; grid (row tiles * pixel tiles, 1, groups)
// roofline on an H200 (67 TFLOP/s, 4.8 TB/s): conv1_1 of net D at batch 64 does 11 GFLOP and moves
// 860 MB: 0.18 ms, bound by memory. conv3_2 does 237 GFLOP and moves 410 MB: 3.5 ms, bound by
// arithmetic, as are all 3x3 layers but the first.
// sm_90: 128x128 127 registers, 16.9 kB of shared memory, 16 warps resident; 64x128 143, 12.8 kB,
// 12 warps; no spills; 512 of about 650 instructions of a slab are multiply-adds: 78 % of the peak
#include "conv_loaders.cuh"

constexpr int TURN_BLOCK = 256;

template <int ROWS, int COLS, bool HOLES>
__device__ __forceinline__ void conv_tile(const Conv& of, const float* x, const float* weight,
                                          const float* bias, const int* steps, float* y, int relu) {
    SHARED(slabs, Slabs<ROWS, COLS>);
    constexpr int THREADS = Tile<ROWS, COLS>::THREADS;
    const int row_tiles = ceil_div(of.K, ROWS);
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    MatrixLoader<Walk<ROWS, SLAB, THREADS, true>> filters(weight, row0, of.K, of.depth, 1, 0,
                                                          of.depth);
    WindowLoader<Walk<COLS, SLAB, THREADS, false>, HOLES> windows(of, x, steps, col0);
    float sums[SUMS][SUMS];
    tile_product<ROWS, COLS>(slabs, filters, windows, ceil_div(of.depth, SLAB), sums);
    const int tile = again(blockIdx.x), tiles = ceil_div(again(of.K), ROWS);
    const int first_k = tile % tiles * ROWS, first_pixel = tile / tiles * COLS;
    const int plane = of.P * of.Q, first_of_group = again(blockIdx.z) * of.K;
    for_quads<COLS>(sums, [=](int row, int col, const float (&quad)[QUAD]) {
        const int k = first_k + row, pixel = first_pixel + col;
        if (k >= of.K) {
            return;
        }
        const float added = bias == nullptr ? 0.0f : __ldg(bias + first_of_group + k);
        float result[QUAD];
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            const float value = quad[i] + added;
            result[i] = relu && value <= 0.0f ? 0.0f : value;
        }
        const int n = pixel / plane, within = pixel - n * plane;
        float* const channel = y + static_cast<int64_t>(first_of_group + k) * plane;
        if (within + QUAD <= plane && pixel < of.pixels) {
            store_quad(channel + n * of.y_image, within, plane, result);
            return;
        }
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {  // across the end of an image, or of the last one
            const int image = (pixel + i) / plane;
            if (pixel + i < of.pixels) {
                channel[image * of.y_image + pixel + i - image * plane] = result[i];
            }
        }
    });
}

// x (N, groups*C, H, W), weight (groups*K, C, R, S), bias (groups*K,) or null, steps (depth, 2) in;
// y (N, groups*K, P, Q) out. C and K are those of a group; depth = C*R*S, pixels = N*P*Q.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv_128x128(const float* x, const float* weight, const float* bias, const int* steps, float* y,
                 int C, int H, int W, int K, int P, int Q, int pixels, int depth, int64_t x_image,
                 int64_t y_image, int stride_h, int stride_w, int pad_h, int pad_w, int hole_h,
                 int hole_w, int relu) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, hole_h, hole_w};
    conv_tile<128, 128, false>(of, x + blockIdx.z * (C * H * W), weight + blockIdx.z * (K * depth),
                               bias, steps, y, relu);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv_64x128(const float* x, const float* weight, const float* bias, const int* steps, float* y,
                int C, int H, int W, int K, int P, int Q, int pixels, int depth, int64_t x_image,
                int64_t y_image, int stride_h, int stride_w, int pad_h, int pad_w, int hole_h,
                int hole_w, int relu) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, hole_h, hole_w};
    conv_tile<64, 128, false>(of, x + blockIdx.z * (C * H * W), weight + blockIdx.z * (K * depth),
                              bias, steps, y, relu);
}

// As above, for an x with holes: the gradient of a strided convolution's input.
extern "C" __global__ void __launch_bounds__(64, 6)
    conv_holes_64x64(const float* x, const float* weight, const float* bias, const int* steps,
                     float* y, int C, int H, int W, int K, int P, int Q, int pixels, int depth,
                     int64_t x_image, int64_t y_image, int stride_h, int stride_w, int pad_h,
                     int pad_w, int hole_h, int hole_w, int relu) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, hole_h, hole_w};
    conv_tile<64, 64, true>(of, x + blockIdx.z * (C * H * W), weight + blockIdx.z * (K * depth),
                            bias, steps, y, relu);
}

// weight (groups*K, C, R, S) in; turned (groups*C, K, R, S) out, each filter rotated by 180 degrees
extern "C" __global__ void __launch_bounds__(TURN_BLOCK)
    conv_turn_filters(const float* weight, float* turned, int64_t count, int C, int K, int filter) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int place = at % filter, k = at / filter % K, c = at / filter / K % C;
    const int64_t group = at / filter / K / C;
    turned[at] = weight[((group * K + k) * C + c) * filter + filter - 1 - place];
}
