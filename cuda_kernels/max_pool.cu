// max_pool.cu -- max pooling with the position of each maximum, and its gradient
// v1  forward: one output per thread, the window read from global memory; backward: one input per
//     thread, which searches the windows that contain it, so no atomic addition is needed
//                                                          <- launched, any geometry
// v2  2x2 windows at stride 2 over planes of even width and height: two outputs per thread, 16
//     bytes from each of two rows; backward writes the windows without a search
//                                                          <- launched where it applies: VGG
// launch: block 256, grid ceil(elements / 256); v2: ceil(outputs / 512)
// bytes per 2x2 window: forward 24 (4 reads, value and position), backward 24. Bound by memory:
// pool1 of net D at batch 64 moves 1.23 GB each way, 0.26 ms on an H200 at 4.8 TB/s.
// sm_90: 2x2 23 registers, all warps resident; any window 40, 3/4 of them
#include <cfloat>

#include "quads.cuh"

constexpr int BLOCK = 256;

// A pair of values or positions, in one access if it is aligned.
template <class Pair, class T>
__device__ __forceinline__ Pair load_pair(const T* at) {
    if (is_aligned(at, sizeof(Pair))) {
        return *reinterpret_cast<const Pair*>(at);
    }
    return {at[0], at[1]};
}
template <class Pair, class T>
__device__ __forceinline__ void store_pair(T* at, Pair pair) {
    if (is_aligned(at, sizeof(Pair))) {
        *reinterpret_cast<Pair*>(at) = pair;
        return;
    }
    at[0] = pair.x;
    at[1] = pair.y;
}

// Caffe's strict `>`: the first maximum is taken, and NaN never is.
__device__ __forceinline__ void challenge(float value, int place, float& best, int& winner) {
    if (value > best) {
        best = value;
        winner = place;
    }
}

// x (planes, H, W) in; y (planes, P, Q) out; mask (planes, P, Q) out: h*W+w, -1 if there is none.
// count = planes * P * Q
extern "C" __global__ void __launch_bounds__(BLOCK)
    max_pool_forward(const float* x, float* y, int* mask, int64_t count, int H, int W, int P, int Q,
                     int kernel_h, int kernel_w, int stride_h, int stride_w, int pad_h, int pad_w) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int64_t plane = at / (P * Q);
    const int within = at - plane * (P * Q), p = within / Q, q = within - p * Q;
    const int top = p * stride_h - pad_h, left = q * stride_w - pad_w;
    const float* const image = x + plane * H * W;
    float best = -FLT_MAX;
    int winner = -1;
    for (int h = max(top, 0); h < min(top + kernel_h, H); ++h) {
        for (int w = max(left, 0); w < min(left + kernel_w, W); ++w) {
            challenge(__ldg(image + h * W + w), h * W + w, best, winner);
        }
    }
    y[at] = best;
    mask[at] = winner;
}

// dy, mask (planes, P, Q) in; dx (planes, H, W) out. count = planes * H * W
extern "C" __global__ void __launch_bounds__(BLOCK)
    max_pool_backward(const float* dy, const int* mask, float* dx, int64_t count, int H, int W,
                      int P, int Q, int kernel_h, int kernel_w, int stride_h, int stride_w,
                      int pad_h, int pad_w) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int64_t plane = at / (H * W);
    const int place = at - plane * (H * W), h = place / W + pad_h, w = place % W + pad_w;
    // The windows that contain this input: rows p_begin to p_end - 1, in the order of the outputs.
    const int p_begin = h < kernel_h ? 0 : (h - kernel_h) / stride_h + 1;
    const int q_begin = w < kernel_w ? 0 : (w - kernel_w) / stride_w + 1;
    const int p_end = min(h / stride_h + 1, P), q_end = min(w / stride_w + 1, Q);
    const int64_t first = plane * P * Q;
    float sum = 0.0f;
    for (int p = p_begin; p < p_end; ++p) {
        for (int q = q_begin; q < q_end; ++q) {
            if (__ldg(mask + first + p * Q + q) == place) {
                sum += __ldg(dy + first + p * Q + q);
            }
        }
    }
    dx[at] = sum;
}

// As above, for 2x2 windows at stride 2, W = 2 Q, H = 2 P, Q even: two outputs per thread.
// pairs = planes * P * Q / 2
extern "C" __global__ void __launch_bounds__(BLOCK)
    max_pool_2x2_forward(const float* x, float* y, int* mask, int64_t pairs, int P, int Q) {
    const int64_t pair = global_thread();
    if (pair >= pairs) {
        return;
    }
    const int64_t at = 2 * pair, line = at / Q;  // line: row of outputs, over all planes
    const int q = at - line * Q, p = line % P, W = 2 * Q;
    const float* const row = x + 2 * line * W;
    float upper[QUAD], lower[QUAD], best[2];
    load_quad(row, 2 * q, W, upper);
    load_quad(row + W, 2 * q, W, lower);
    int winner[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int place = 2 * p * W + 2 * (q + i);
        best[i] = -FLT_MAX;
        winner[i] = -1;
        challenge(upper[2 * i], place, best[i], winner[i]);
        challenge(upper[2 * i + 1], place + 1, best[i], winner[i]);
        challenge(lower[2 * i], place + W, best[i], winner[i]);
        challenge(lower[2 * i + 1], place + W + 1, best[i], winner[i]);
    }
    store_pair(y + at, make_float2(best[0], best[1]));
    store_pair(mask + at, make_int2(winner[0], winner[1]));
}

extern "C" __global__ void __launch_bounds__(BLOCK)
    max_pool_2x2_backward(const float* dy, const int* mask, float* dx, int64_t pairs, int P,
                          int Q) {
    const int64_t pair = global_thread();
    if (pair >= pairs) {
        return;
    }
    const int64_t at = 2 * pair, line = at / Q;
    const int q = at - line * Q, p = line % P, W = 2 * Q;
    const float2 slope = load_pair<float2>(dy + at);
    const int2 winner = load_pair<int2>(mask + at);
    const float slopes[2] = {slope.x, slope.y};
    const int winners[2] = {winner.x, winner.y};
    float* const row = dx + 2 * line * W;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float spread[QUAD];
#pragma unroll
        for (int i = 0; i < QUAD; ++i) {
            const int place = (2 * p + r) * W + 2 * q + i;
            spread[i] = winners[i / 2] == place ? slopes[i / 2] : 0.0f;
        }
        store_quad(row + r * W, 2 * q, W, spread);
    }
}
