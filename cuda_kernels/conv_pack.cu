// requires: sm_80
// conv_pack.cu -- converts images and filters to the layout of the tensor cores
// Images (N,C,H,W) in fp32 become a grid of positions (N, down, across, channels) in tf32 or bf16,
// including the padding as zeros, so that a tap of a convolution at stride 1 is a constant distance
// and kernels need no test for borders. Filters (K,C,R,S) become (K, R*S, channels).
// Channels are padded to a multiple of a chunk of 16 bytes.
// v1  one word per thread, gathered channel by channel: reads are not coalesced
// v2  tiles of 32 positions x 128 bytes of channels, transposed in shared memory: reads and writes
//     are coalesced                                                                 <- launched
// launch: images block (32, 8), grid (ceil(down * across / 32), ceil(words / 32), N); filters block
// 256, grid ceil(words / 256); scatter block 256, grid ceil(weights / 256)
// bytes per element: 4 read, 4 (tf32) or 2 (bf16) written; bound by memory: x of conv1_2 of net D
// at batch 64 needs 0.35 or 0.26 ms on an H200 at 4.8 TB/s.
// sm_90: images 32 registers, 4.2 kB (bf16 8.4 kB) of shared memory, all warps resident
#include "tensor_tile.cuh"

constexpr int PLACES = 32;
constexpr int LINES = 8;
constexpr int IMAGE_BLOCK = 256;
constexpr int BLOCK = 256;

// x (N,C,H,W) in; packed (N, down * across, words) out: row h, column w of an image is position
// (h + top) * across + w + left; the others are zero
template <class P>
__device__ __forceinline__ void pack_images(const float* x, uint32_t* packed, int C, int H, int W,
                                            int down, int across, int top, int left, int words) {
    constexpr int CHANNELS = 32 * P::PER_WORD;
    SHARED(tile, float[CHANNELS][PLACES + 1]);
    const int n = blockIdx.z, channel0 = blockIdx.y * CHANNELS;
    const int place = blockIdx.x * PLACES + threadIdx.x;
    const int row = place / across - top, col = place % across - left;
    const bool inside = place < down * across &&
                        static_cast<unsigned>(row) < static_cast<unsigned>(H) &&
                        static_cast<unsigned>(col) < static_cast<unsigned>(W);
    const float* const source = x + static_cast<int64_t>(n) * C * H * W + row * W + col;
#pragma unroll
    for (int c = threadIdx.y; c < CHANNELS; c += LINES) {
        const bool there = inside && channel0 + c < C;
        tile[c][threadIdx.x] =
            there ? __ldg(source + static_cast<int64_t>(channel0 + c) * H * W) : 0.0f;
    }
    __syncthreads();
    const int word = blockIdx.y * 32 + threadIdx.x;
#pragma unroll
    for (int i = threadIdx.y; i < PLACES; i += LINES) {
        const int64_t to = blockIdx.x * PLACES + i;
        if (word < words && to < down * across) {
            float values[P::PER_WORD];
            for (int j = 0; j < P::PER_WORD; ++j) {
                values[j] = tile[threadIdx.x * P::PER_WORD + j][i];
            }
            packed[(static_cast<int64_t>(n) * down * across + to) * words + word] = P::pack(values);
        }
    }
}

// weight (K,C,taps) in; packed (K, taps, words) out; if `turned`, (C, taps, words) with K as the
// channels and the taps in reverse order. count = words of the result
template <class P>
__device__ __forceinline__ void pack_filters(const float* weight, uint32_t* packed, int64_t count,
                                             int K, int C, int taps, int words, int turned) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int word = at % words, tap = at / words % taps, output = at / words / taps;
    const int inputs = turned ? K : C;
    float values[P::PER_WORD];
    for (int j = 0; j < P::PER_WORD; ++j) {
        const int input = word * P::PER_WORD + j;
        const int64_t k = turned ? input : output, c = turned ? output : input;
        const int from = turned ? taps - 1 - tap : tap;
        values[j] = input < inputs ? __ldg(weight + (k * C + c) * taps + from) : 0.0f;
    }
    packed[at] = P::pack(values);
}

extern "C" __global__ void __launch_bounds__(IMAGE_BLOCK)
    pack_images_tf32(const float* x, uint32_t* packed, int C, int H, int W, int down, int across,
                     int top, int left, int words) {
    pack_images<Tf32>(x, packed, C, H, W, down, across, top, left, words);
}

extern "C" __global__ void __launch_bounds__(IMAGE_BLOCK)
    pack_images_bf16(const float* x, uint32_t* packed, int C, int H, int W, int down, int across,
                     int top, int left, int words) {
    pack_images<Bf16>(x, packed, C, H, W, down, across, top, left, words);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    pack_filters_tf32(const float* weight, uint32_t* packed, int64_t count, int K, int C, int taps,
                      int words, int turned) {
    pack_filters<Tf32>(weight, packed, count, K, C, taps, words, turned);
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    pack_filters_bf16(const float* weight, uint32_t* packed, int64_t count, int K, int C, int taps,
                      int words, int turned) {
    pack_filters<Bf16>(weight, packed, count, K, C, taps, words, turned);
}

// partial (splits, K, taps, channels) in; dw (K, C, taps) in and out: the splits are added in their
// order. weights = K * C * taps
extern "C" __global__ void __launch_bounds__(BLOCK)
    unpack_gradient(const float* partial, float* dw, int weights, int C, int taps, int channels,
                    int splits) {
    const int at = global_thread();
    if (at >= weights) {
        return;
    }
    // Neighbouring threads compute neighbouring channels, as in the layout of `partial`.
    const int c = at % C, tap = at / C % taps, k = at / C / taps;
    const int64_t apart = static_cast<int64_t>(weights) / C * channels;
    const float* const first = partial + (static_cast<int64_t>(k) * taps + tap) * channels + c;
    float sum = 0.0f;
    for (int split = 0; split < splits; ++split) {
        sum += __ldg(first + split * apart);
    }
    dw[(static_cast<int64_t>(k) * C + c) * taps + tap] += sum;
}
