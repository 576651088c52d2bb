// conv_weight.cu -- the gradient of a convolution's weights as an implicit matrix product
// v1  one block per weight, which sums over images and pixels: x and dy are read once per weight
// v2  tiles of K x C*R*S over the depth N*P*Q, gathered while they are staged, as in conv.cu; the
//     few tiles (conv1_2 of net D: 5) leave most of the device idle
// v3  the depth in splits whose size depends on the geometry alone; the partial sums are added in
//     order by gemm_sum_splits                                                      <- launched
// launch: as gemm.cu; grid (row tiles * column tiles, splits, groups)
// roofline on an H200: the same operations as the forward pass, and x and dy read once for every
// 128 columns or rows of the other: bound by arithmetic from 64 channels on; conv3_2 of net D at
// batch 64, 237 GFLOP at 67 TFLOP/s: 3.5 ms.
// sm_90: 128x128 128 registers, 16.9 kB of shared memory, 16 warps resident; 64x128 159, 12.8 kB,
// 12 warps; no spills; 512 of about 700 instructions of a slab are multiply-adds: 73 % of the peak
#include "conv_loaders.cuh"

// Rows: dy of the output channels; neighbouring depths are neighbouring pixels.
template <class Walk_>
struct GradientLoader {
    using Walk = Walk_;
    const Conv& of;
    const Pixel& pixel;
    const float* row;
    int left;

    // dy (N,K,P,Q); the tile begins at output channel `first`
    __device__ __forceinline__ GradientLoader(const Conv& of_, const Pixel& pixel_, const float* dy,
                                              int first)
        : of(of_), pixel(pixel_), left(of_.K - first - Walk::index()) {
        row = dy + static_cast<int64_t>(first + Walk::index()) * of.P * of.Q;
    }

    __device__ __forceinline__ void fetch(float (&staged)[Walk::COUNT]) {
        const int plane = of.P * of.Q;
        const float* at = row + pixel.n * of.y_image + pixel.p * of.Q + pixel.q;
#pragma unroll
        for (int i = 0; i < Walk::COUNT; ++i, at += Walk::INDEX_STEP * plane) {
            const bool inside = i * Walk::INDEX_STEP < left && pixel.left > 0;
            staged[i] = inside ? __ldg(at) : 0.0f;
        }
    }
};

// Columns: the element of x that weight (c, r, s) multiplies at each pixel.
template <class Walk_>
struct TapLoader {
    using Walk = Walk_;
    const Conv& of;
    Pixel& pixel;
    const float* x;
    const int2* taps;

    // x (N,C,H,W); steps (C*R*S, 2); the tile begins at weight `first`
    __device__ __forceinline__ TapLoader(const Conv& of_, Pixel& pixel_, const float* x_,
                                         const int* steps, int first)
        : of(of_),
          pixel(pixel_),
          x(x_),
          taps(reinterpret_cast<const int2*>(steps) + first + Walk::index()) {}

    __device__ __forceinline__ void fetch(float (&staged)[Walk::COUNT]) {
        const int left = pixel.q * of.stride_w - of.pad_w;
        const int row = pixel.p * of.stride_h - of.pad_h, offset = row * of.W + left;
        const int top = pixel.left > 0 ? row : ABOVE;
        const float* const image = x + pixel.n * of.x_image;
#pragma unroll
        for (int i = 0; i < Walk::COUNT; ++i) {
            // Read from the L1 cache: keeping the taps in registers would spill others.
            const int2 tap = __ldg(taps + i * Walk::INDEX_STEP);
            const bool inside = is_inside(of, top + (tap.y >> 16), left + (tap.y & 0xffff));
            staged[i] = inside ? __ldg(image + offset + tap.x) : 0.0f;
        }
        // The last element of a slab advances the pixel.
        pixel.advance(of, SLAB);
    }
};

// One tile of one split: columns are weights of a filter, the depth is `chunk` pixels.
template <int ROWS, int COLS>
__device__ __forceinline__ void weight_tile(const Conv& of, const float* x, const float* dy,
                                            const int* steps, float* partial, int chunk) {
    SHARED(slabs, Slabs<ROWS, COLS>);
    constexpr int THREADS = Tile<ROWS, COLS>::THREADS;
    using WalkA = Walk<ROWS, SLAB, THREADS, true>;
    using WalkB = Walk<COLS, SLAB, THREADS, true>;
    const int row_tiles = ceil_div(of.K, ROWS);
    const int row0 = blockIdx.x % row_tiles * ROWS, col0 = blockIdx.x / row_tiles * COLS;
    const int begin = blockIdx.y * chunk, end = min(of.pixels, begin + chunk);
    Pixel pixel(of, begin + WalkA::depth(), end);
    GradientLoader<WalkA> gradients(of, pixel, dy, row0);
    TapLoader<WalkB> taps(of, pixel, x, steps, col0);
    float sums[SUMS][SUMS];
    tile_product<ROWS, COLS>(slabs, gradients, taps, ceil_div(end - begin, SLAB), sums);
    const int tiles = ceil_div(again(of.K), ROWS);
    const int top = row0, left = again(blockIdx.x) / tiles * COLS;
    const int64_t part = again(blockIdx.y) * gridDim.z + again(blockIdx.z);
    float* const filters = partial + part * of.K * of.depth;
    for_quads<COLS>(sums, [=](int row, int col, const float (&quad)[QUAD]) {
        if (top + row < of.K) {
            store_quad(filters + static_cast<int64_t>(top + row) * of.depth, left + col, of.depth,
                       quad);
        }
    });
}

// x (N, groups*C, H, W), dy (N, groups*K, P, Q), steps (depth, 2) in; partial (splits, groups*K,
// depth) out. C and K are those of a group; depth = C*R*S, pixels = N*P*Q, of which a split
// takes `chunk`.
extern "C" __global__ void __launch_bounds__(256, 2)
    conv_weight_128x128(const float* x, const float* dy, const int* steps, float* partial, int C,
                        int H, int W, int K, int P, int Q, int pixels, int depth, int64_t x_image,
                        int64_t y_image, int stride_h, int stride_w, int pad_h, int pad_w,
                        int chunk) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, 1,      1};
    const int64_t group = blockIdx.z;
    weight_tile<128, 128>(of, x + group * C * H * W, dy + group * K * P * Q, steps, partial, chunk);
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv_weight_64x128(const float* x, const float* dy, const int* steps, float* partial, int C,
                       int H, int W, int K, int P, int Q, int pixels, int depth, int64_t x_image,
                       int64_t y_image, int stride_h, int stride_w, int pad_h, int pad_w,
                       int chunk) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, 1,      1};
    const int64_t group = blockIdx.z;
    weight_tile<64, 128>(of, x + group * C * H * W, dy + group * K * P * Q, steps, partial, chunk);
}

extern "C" __global__ void __launch_bounds__(64, 6)
    conv_weight_64x64(const float* x, const float* dy, const int* steps, float* partial, int C,
                      int H, int W, int K, int P, int Q, int pixels, int depth, int64_t x_image,
                      int64_t y_image, int stride_h, int stride_w, int pad_h, int pad_w,
                      int chunk) {
    const Conv of{C,       H,       W,        K,        P,     Q,     pixels, depth,
                  x_image, y_image, stride_h, stride_w, pad_h, pad_w, 1,      1};
    const int64_t group = blockIdx.z;
    weight_tile<64, 64>(of, x + group * C * H * W, dy + group * K * P * Q, steps, partial, chunk);
}
