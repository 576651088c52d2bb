// winograd.cu -- the transforms before and after the products of a 3x3 convolution at stride 1
// v1  three stages: transform data and filters, 16 or 36 products by gemm.cu, inverse transform
// v2  one kernel that transforms in shared memory (Lavin & Gray): no intermediates in device
//     memory, but its tiles of 32 x 32 outputs read filters and data more often, and F(4x4) does
//     not fit the registers; not implemented
// v3  v1 with the images in chunks, which bound the size of the intermediates (data and products,
//     each 2.25 times the data for F(4x4)): all layers share one workspace          <- launched
// Direct convolution needs 9 multiply-adds per output, F(4x4) 2.25 and F(2x2) 4.
// Backward to the data: the same with the rotated filters. Backward to the weights: transforms of
// data and dy, a product over all tiles, then G^T . G of its sum.
// Intermediates: data (planes, C, ld), products and dy (planes, K, ld), filters (planes, C, K);
// planes = (M+2)^2; ld >= tiles = N * tiles_h * tiles_w, a multiple of 4.
// launch: block 128, grid (ceil(tiles / 128), channels); filters and weights: block 128, grid
// ceil(C * K / 128)
// roofline on an H200, conv3_2 of net D at batch 64 (F(4x4), 205 MB of data): data 0.67 GB, 0.14
// ms; 36 products of 256x256x12544, 59 GFLOP, 0.88 ms; inverse 0.67 GB, 0.14 ms: 1.2 ms, against
// 3.5 ms of direct convolution.
// sm_90: data 48 registers, products 56, 5/8 of the warps resident; the others 32, or 48
#include "quads.cuh"
#include "winograd.cuh"

constexpr int BLOCK = 128;

// The position of tile `tile`: image n, and the row and column of its first output.
struct Place {
    int n, row, col;
};

template <int M>
__device__ __forceinline__ Place place_of(int tile, int tiles_h, int tiles_w) {
    const int line = tile / tiles_w, n = line / tiles_h;
    return {n, (line - n * tiles_h) * M, (tile - line * tiles_w) * M};
}

// A square of `side` from a plane (H, W); 0 outside.
template <int SIDE>
__device__ __forceinline__ void read_square(const float* plane, int H, int W, int top, int left,
                                            float (&square)[SIDE][SIDE]) {
#pragma unroll
    for (int i = 0; i < SIDE; ++i) {
        const bool row_inside = static_cast<unsigned>(top + i) < static_cast<unsigned>(H);
#pragma unroll
        for (int j = 0; j < SIDE; ++j) {
            const bool inside =
                row_inside && static_cast<unsigned>(left + j) < static_cast<unsigned>(W);
            square[i][j] = inside ? __ldg(plane + (top + i) * W + left + j) : 0.0f;
        }
    }
}

// planes: element (i, j) of the square goes to plane i * SIDE + j, `apart` elements on.
template <int SIDE>
__device__ __forceinline__ void write_planes(float* first, int64_t apart,
                                             const float (&square)[SIDE][SIDE]) {
#pragma unroll
    for (int i = 0; i < SIDE * SIDE; ++i) {
        first[i * apart] = square[i / SIDE][i % SIDE];
    }
}

// Writes the outputs of one row of a tile that are within the row (Q).
__device__ __forceinline__ void write_line(float* line, int col, int Q, const float (&value)[4]) {
    store_quad(line, col, Q, value);
}
__device__ __forceinline__ void write_line(float* line, int col, int Q, const float (&value)[2]) {
    line[col] = value[0];
    if (col + 1 < Q) {
        line[col + 1] = value[1];
    }
}

template <int M>
__device__ __forceinline__ void transform_data(const float* x, float* data, int C, int H, int W,
                                               int tiles_h, int tiles_w, int tiles, int ld,
                                               int pad_h, int pad_w) {
    const int tile = global_thread(), c = blockIdx.y;
    if (tile >= tiles) {
        return;
    }
    const Place at = place_of<M>(tile, tiles_h, tiles_w);
    float square[M + 2][M + 2], result[M + 2][M + 2];
    read_square(x + (static_cast<int64_t>(at.n) * C + c) * H * W, H, W, at.row - pad_h,
                at.col - pad_w, square);
    transform_square(square, result,
                     [](const auto& from, auto& to) { Winograd<M>::data(from, to); });
    write_planes(data + static_cast<int64_t>(c) * ld + tile, static_cast<int64_t>(C) * ld, result);
}

template <int M>
__device__ __forceinline__ void transform_gradient(const float* dy, float* data, int K, int P,
                                                   int Q, int tiles_h, int tiles_w, int tiles,
                                                   int ld) {
    const int tile = global_thread(), k = blockIdx.y;
    if (tile >= tiles) {
        return;
    }
    const Place at = place_of<M>(tile, tiles_h, tiles_w);
    float square[M][M], result[M + 2][M + 2];
    read_square(dy + (static_cast<int64_t>(at.n) * K + k) * P * Q, P, Q, at.row, at.col, square);
    transform_square(square, result,
                     [](const auto& from, auto& to) { Winograd<M>::gradient(from, to); });
    write_planes(data + static_cast<int64_t>(k) * ld + tile, static_cast<int64_t>(K) * ld, result);
}

template <int M>
__device__ __forceinline__ void transform_products(const float* products, const float* bias,
                                                   float* y, int K, int P, int Q, int tiles_h,
                                                   int tiles_w, int tiles, int ld, int relu) {
    const int tile = global_thread(), k = blockIdx.y;
    if (tile >= tiles) {
        return;
    }
    const Place at = place_of<M>(tile, tiles_h, tiles_w);
    const float* const first = products + static_cast<int64_t>(k) * ld + tile;
    float square[M + 2][M + 2], result[M][M];
#pragma unroll
    for (int i = 0; i < (M + 2) * (M + 2); ++i) {
        square[i / (M + 2)][i % (M + 2)] = __ldg(first + i * (static_cast<int64_t>(K) * ld));
    }
    transform_square(square, result,
                     [](const auto& from, auto& to) { Winograd<M>::product(from, to); });
    const float added = bias == nullptr ? 0.0f : __ldg(bias + k);
    float* const plane = y + (static_cast<int64_t>(at.n) * K + k) * P * Q;
#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
        for (int j = 0; j < M; ++j) {
            const float value = result[i][j] + added;
            result[i][j] = relu && value <= 0.0f ? 0.0f : value;
        }
        if (at.row + i < P) {
            write_line(plane + (at.row + i) * Q, at.col, Q, result[i]);
        }
    }
}

// The transformed filter of one pair of channels. `turned` swaps their roles and rotates it.
template <int M>
__device__ __forceinline__ void transform_filter(const float* weight, float* filters, int K, int C,
                                                 int turned) {
    const int at = global_thread(), outputs = turned ? C : K;
    if (at >= K * C) {
        return;
    }
    const int output = at % outputs, input = at / outputs;
    const int k = turned ? input : output, c = turned ? output : input;
    const float* const filter = weight + (static_cast<int64_t>(k) * C + c) * FILTER * FILTER;
    float square[FILTER][FILTER], result[M + 2][M + 2];
#pragma unroll
    for (int i = 0; i < FILTER * FILTER; ++i) {
        square[i / FILTER][i % FILTER] = filter[turned ? FILTER * FILTER - 1 - i : i];
    }
    transform_square(square, result,
                     [](const auto& from, auto& to) { Winograd<M>::filter(from, to); });
    write_planes(filters + at, static_cast<int64_t>(K) * C, result);
}

// partial (planes, splits, K, C): the splits are added in order.
template <int M>
__device__ __forceinline__ void transform_weight(const float* partial, float* dw, int weights,
                                                 int splits) {
    const int at = global_thread();
    if (at >= weights) {
        return;
    }
    float square[M + 2][M + 2] = {}, result[FILTER][FILTER];
    for (int split = 0; split < splits; ++split) {
#pragma unroll
        for (int i = 0; i < (M + 2) * (M + 2); ++i) {
            square[i / (M + 2)][i % (M + 2)] +=
                __ldg(partial + (static_cast<int64_t>(i) * splits + split) * weights + at);
        }
    }
    transform_square(square, result,
                     [](const auto& from, auto& to) { Winograd<M>::weight(from, to); });
    float* const filter = dw + static_cast<int64_t>(at) * FILTER * FILTER;
#pragma unroll
    for (int i = 0; i < FILTER * FILTER; ++i) {
        filter[i] += result[i / FILTER][i % FILTER];
    }
}

// x (N,C,H,W) in; data (planes, C, ld) out
extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_data_4x4(const float* x, float* data, int C, int H, int W, int tiles_h, int tiles_w,
                      int tiles, int ld, int pad_h, int pad_w) {
    transform_data<4>(x, data, C, H, W, tiles_h, tiles_w, tiles, ld, pad_h, pad_w);
}

// weight (K,C,3,3) in; filters (planes, C, K) out, or turned (planes, K, C)
extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_filter_4x4(const float* weight, float* filters, int K, int C, int turned) {
    transform_filter<4>(weight, filters, K, C, turned);
}

// products (planes, K, ld) in, bias (K,) in or null; y (N,K,P,Q) out
extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_product_4x4(const float* products, const float* bias, float* y, int K, int P, int Q,
                         int tiles_h, int tiles_w, int tiles, int ld, int relu) {
    transform_products<4>(products, bias, y, K, P, Q, tiles_h, tiles_w, tiles, ld, relu);
}

// dy (N,K,P,Q) in; data (planes, K, ld) out
extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_gradient_4x4(const float* dy, float* data, int K, int P, int Q, int tiles_h,
                          int tiles_w, int tiles, int ld) {
    transform_gradient<4>(dy, data, K, P, Q, tiles_h, tiles_w, tiles, ld);
}

// partial (planes, splits, K, C) in; dw (K,C,3,3) in and out; weights = K * C
extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_weight_4x4(const float* partial, float* dw, int weights, int splits) {
    transform_weight<4>(partial, dw, weights, splits);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_data_2x2(const float* x, float* data, int C, int H, int W, int tiles_h, int tiles_w,
                      int tiles, int ld, int pad_h, int pad_w) {
    transform_data<2>(x, data, C, H, W, tiles_h, tiles_w, tiles, ld, pad_h, pad_w);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_filter_2x2(const float* weight, float* filters, int K, int C, int turned) {
    transform_filter<2>(weight, filters, K, C, turned);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_product_2x2(const float* products, const float* bias, float* y, int K, int P, int Q,
                         int tiles_h, int tiles_w, int tiles, int ld, int relu) {
    transform_products<2>(products, bias, y, K, P, Q, tiles_h, tiles_w, tiles, ld, relu);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_gradient_2x2(const float* dy, float* data, int K, int P, int Q, int tiles_h,
                          int tiles_w, int tiles, int ld) {
    transform_gradient<2>(dy, data, K, P, Q, tiles_h, tiles_w, tiles, ld);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    winograd_weight_2x2(const float* partial, float* dw, int weights, int splits) {
    transform_weight<2>(partial, dw, weights, splits);
}
