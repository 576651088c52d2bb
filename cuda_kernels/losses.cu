// losses.cu -- terms and gradients of element-wise losses; their sums are those of sums.cu
// v1  on the host: scores and gradients are copied both ways in each pass
// v2  four elements per thread                                                      <- launched
// launch: block 256, grid ceil(count / 1024)
// bytes per element: sigmoid 16 and 16, smooth L1 12 to 16 and 12 to 24; bound by memory
#include "quads.cuh"

constexpr int BLOCK = 256;

// x, t (count) in; terms (count) out: -t log s(x) - (1 - t) log(1 - s(x)), in a form that does not
// overflow, or 0; counted (count) out: 1, or 0 where t is `ignore` and ignores is not 0
extern "C" __global__ void __launch_bounds__(BLOCK)
    sigmoid_loss_terms(const float* x, const float* t, float* terms, float* counted, int64_t count,
                       int ignores, int ignore) {
    const int64_t first = QUAD * global_thread();
    float score[QUAD], target[QUAD], term[QUAD], one[QUAD];
    load_quad(x, first, count, score);
    load_quad(t, first, count, target);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const bool counts = !ignores || static_cast<int>(target[i]) != ignore;
        const float positive = score[i] >= 0.0f ? 1.0f : 0.0f;
        const float size = score[i] - 2.0f * score[i] * positive;
        const float value = logf(1.0f + expf(size)) - score[i] * (target[i] - positive);
        term[i] = counts ? value : 0.0f;
        one[i] = counts ? 1.0f : 0.0f;
    }
    store_quad(terms, first, count, term);
    store_quad(counted, first, count, one);
}

// x, t, counted (count) in; dx (count) out: (s(x) - t) * factor, or 0
extern "C" __global__ void __launch_bounds__(BLOCK)
    sigmoid_loss_slopes(const float* x, const float* t, const float* counted, float* dx,
                        int64_t count, float factor) {
    const int64_t first = QUAD * global_thread();
    float score[QUAD], target[QUAD], one[QUAD];
    load_quad(x, first, count, score);
    load_quad(t, first, count, target);
    load_quad(counted, first, count, one);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float small = expf(-fabsf(score[i]));
        const float sigmoid = (score[i] >= 0.0f ? 1.0f : small) / (1.0f + small);
        score[i] = (sigmoid - target[i]) * one[i] * factor;
    }
    store_quad(dx, first, count, score);
}

// inside * (a - b), where inside is 1 if its pointer is null
__device__ __forceinline__ void differences(const float* a, const float* b, const float* inside,
                                            int64_t first, int64_t count, float (&d)[QUAD],
                                            float (&weight)[QUAD]) {
    float other[QUAD];
    load_quad(a, first, count, d);
    load_quad(b, first, count, other);
    if (inside != nullptr) {
        load_quad(inside, first, count, weight);
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        weight[i] = inside != nullptr ? weight[i] : 1.0f;
        d[i] = weight[i] * (d[i] - other[i]);
    }
}

// a, b (count) in; inside (count) in or null; terms (count) out
extern "C" __global__ void __launch_bounds__(BLOCK)
    smooth_l1_terms(const float* a, const float* b, const float* inside, float* terms,
                    int64_t count, float sigma2) {
    const int64_t first = QUAD * global_thread();
    float d[QUAD], weight[QUAD] = {};
    differences(a, b, inside, first, count, d, weight);
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float size = fabsf(d[i]);
        d[i] = size * sigma2 < 1.0f ? 0.5f * sigma2 * size * size : size - 0.5f / sigma2;
    }
    store_quad(terms, first, count, d);
}

// a, b (count) in; inside, outside (count) in or null; da, db (count) out or null
extern "C" __global__ void __launch_bounds__(BLOCK)
    smooth_l1_slopes(const float* a, const float* b, const float* inside, const float* outside,
                     float* da, float* db, int64_t count, float sigma2, float factor) {
    const int64_t first = QUAD * global_thread();
    float d[QUAD], weight[QUAD] = {}, outer[QUAD];
    differences(a, b, inside, first, count, d, weight);
    if (outside != nullptr) {
        load_quad(outside, first, count, outer);
    }
#pragma unroll
    for (int i = 0; i < QUAD; ++i) {
        const float slope = fminf(fmaxf(d[i] * sigma2, -1.0f), 1.0f);
        d[i] = slope * weight[i] * (outside != nullptr ? outer[i] : 1.0f) * factor;
        weight[i] = -d[i];
    }
    if (da != nullptr) {
        store_quad(da, first, count, d);
    }
    if (db != nullptr) {
        store_quad(db, first, count, weight);
    }
}
