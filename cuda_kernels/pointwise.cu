// pointwise.cu -- channel-wise affine maps and PReLU, element-wise sums, products and maxima
// v1  four elements a thread as 16 bytes; per-channel parameters through the read-only cache
//                                                                                   <- launched
// product_sums: one block a channel over all images                                 <- launched
// launch: block 256, grid ceil(count / 1024); product_sums: block 256, grid C
// bytes an element: affine 8, sum of two 12, PReLU backward 12. Bound by memory.
#include "quads.cuh"

constexpr int BLOCK = 256;

// x (outer, C, inner) in; y as x out, may be x; centre, scale, shift (C,) in, or null.
// y = (x - centre) * scale + shift, then max(., 0) if relu is not 0. NaN passes.
extern "C" __global__ void __launch_bounds__(BLOCK)
    affine(const float* x, const float* centre, const float* scale, const float* shift, float* y,
           int64_t count, int C, int inner, int relu) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const int c = static_cast<int>((first + i) / inner % C);
        float v = value[i];
        v -= centre ? __ldg(centre + c) : 0.0f;
        v *= scale ? __ldg(scale + c) : 1.0f;
        v += shift ? __ldg(shift + c) : 0.0f;
        value[i] = relu && v < 0.0f ? 0.0f : v;
    }
    store_quad(y, first, count, value);
}

// x, dy (outer, C, inner) in; slope (C,) in; out as x, may be x or dy
extern "C" __global__ void __launch_bounds__(BLOCK)
    prelu(const float* x, const float* dy, const float* slope, float* out, int64_t count, int C,
          int inner) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], result[QUAD];
    load_quad(x, first, count, value);
    load_quad(dy, first, count, result);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const int c = static_cast<int>((first + i) / inner % C);
        result[i] *= value[i] > 0.0f ? 1.0f : __ldg(slope + c);
    }
    store_quad(out, first, count, result);
}

// x, y (outer, C, inner) in; sums (C,) in and out: += sum of x * y, or of min(x, 0) * y if below
extern "C" __global__ void __launch_bounds__(BLOCK)
    product_sums(const float* x, const float* y, float* sums, int outer, int C, int inner,
                 int below) {
    SHARED(scratch, float[BLOCK / WARP]);
    const int c = blockIdx.x;
    const int64_t length = static_cast<int64_t>(outer) * inner;
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < length; i += BLOCK) {
        const int64_t at = (i / inner * C + c) * inner + i % inner;
        const float value = __ldg(x + at);
        sum += (below && value > 0.0f ? 0.0f : value) * __ldg(y + at);
    }
    sum = block_sum<BLOCK>(sum, scratch);
    if (threadIdx.x == 0) {
        sums[c] += sum;
    }
}

// a, b (count) in; y (count) out, may be a or b. y = left * a + right * b, then max(., 0) if relu
extern "C" __global__ void __launch_bounds__(BLOCK)
    sum_of_two(const float* a, const float* b, float* y, int64_t count, float left, float right,
               int relu) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], other[QUAD];
    load_quad(a, first, count, value);
    load_quad(b, first, count, other);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float v = left * value[i] + right * other[i];
        value[i] = relu && v < 0.0f ? 0.0f : v;
    }
    store_quad(y, first, count, value);
}

// x (count) in; y (count) out, may be x. y = factor * x, then max(., 0) if relu
extern "C" __global__ void __launch_bounds__(BLOCK)
    multiple(const float* x, float* y, int64_t count, float factor, int relu) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD];
    load_quad(x, first, count, value);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float v = factor * value[i];
        value[i] = relu && v < 0.0f ? 0.0f : v;
    }
    store_quad(y, first, count, value);
}

// a, b (count) in; y (count) out, may be a or b
extern "C" __global__ void __launch_bounds__(BLOCK)
    product_of_two(const float* a, const float* b, float* y, int64_t count) {
    const int64_t first = QUAD * global_thread();
    float value[QUAD], other[QUAD];
    load_quad(a, first, count, value);
    load_quad(b, first, count, other);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        value[i] *= other[i];
    }
    store_quad(y, first, count, value);
}

// best (count) in and out: the largest of the inputs before `index`; x (count) in; winner (count)
// in and out: its index. Index 0 starts. Index 1 wins unless the first is larger, as in Caffe.
extern "C" __global__ void __launch_bounds__(BLOCK)
    larger(const float* x, float* best, int32_t* winner, int64_t count, int index) {
    const int64_t first = QUAD * global_thread();
    for (int64_t i = first; i < min(first + QUAD, count); ++i) {
        const float value = x[i];
        const bool wins =
            index == 0 || (index == 1 ? !(best[i] > value) : value > best[i]);
        if (wins) {
            best[i] = value;
            winner[i] = index;
        }
    }
}

// dy (count) in; winner (count) in; dx (count) out, may be dy: dy where winner is index, else 0
extern "C" __global__ void __launch_bounds__(BLOCK)
    max_backward(const float* dy, const int32_t* winner, float* dx, int64_t count, int index) {
    const int64_t first = QUAD * global_thread();
    for (int64_t i = first; i < min(first + QUAD, count); ++i) {
        dx[i] = winner[i] == index ? dy[i] : 0.0f;
    }
}
