// softmax_loss.cu -- the loss of soft-max probabilities, its gradient, and accuracy
// v1  one block over all labels: fast enough for a batch, slow for the maps of a dense net
// v2  stage 1: one position (outer, inner) per thread, summed by block; stage 2: one block adds the
//     sums of the blocks, in float64                                                <- launched
// accuracy: a warp per position counts the scores not below the label's; then the same two stages.
// launch: block 256, grid ceil(places / 256) and one block; accuracy block 256, grid
// ceil(places / 8); backward block 256, grid ceil(count / 256)
// bytes: the loss reads a label and a probability per position, backward moves 8 per element. At
// batch 64 and 1000 classes 512 kB: 0.1 us at an H200's 4.8 TB/s, so a few us, bound by latency.
// sm_90: at most 32 registers and 4 kB of shared memory, all warps resident
#include <cfloat>

#include "common.cuh"

constexpr int BLOCK = 256;

// Whether a position is counted, and its label.
__device__ __forceinline__ bool counts(float label, int has_ignore, int ignore, int& name) {
    name = static_cast<int>(label);
    return !(has_ignore && name == ignore);
}

// prob (outer, C, inner), label (places,) in; partial (blocks, 2) out: a block's sum of -log and
// its number of labels. places = outer * inner
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_loss_pieces(const float* prob, const float* label, float* partial, int64_t places,
                        int C, int inner, int has_ignore, int ignore) {
    SHARED(loss_sums, float[BLOCK / WARP]);
    SHARED(count_sums, float[BLOCK / WARP]);
    const int64_t place = global_thread();
    float loss = 0.0f, counted = 0.0f;
    int name;
    if (place < places && counts(__ldg(label + place), has_ignore, ignore, name)) {
        const int64_t outer = place / inner;
        const float chosen = __ldg(prob + (outer * C + name) * inner + place % inner);
        // Not fmaxf, which would hide the NaN of a run that diverged.
        loss = -logf(chosen < FLT_MIN ? FLT_MIN : chosen);
        counted = 1.0f;
    }
    loss = block_sum<BLOCK>(loss, loss_sums);
    counted = block_sum<BLOCK>(counted, count_sums);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = loss;
        partial[2 * blockIdx.x + 1] = counted;
    }
}

// Adds the columns of partial (blocks, 2) in one block in float64; the results are in `sums`.
__device__ __forceinline__ void sum_pieces(const float* partial, int64_t blocks,
                                           double (&sums)[2][BLOCK]) {
#pragma unroll
    for (int column = 0; column < 2; ++column) {
        double sum = 0.0;
        for (int64_t i = threadIdx.x; i < blocks; i += BLOCK) {
            sum += partial[2 * i + column];
        }
        sums[column][threadIdx.x] = sum;
    }
    __syncthreads();
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            sums[0][threadIdx.x] += sums[0][threadIdx.x + half];
            sums[1][threadIdx.x] += sums[1][threadIdx.x + half];
        }
        __syncthreads();
    }
}

// partial (blocks, 2) in; loss (1,), stats (1,) out. normalizer 0: the number of labels, at least 1
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_loss_finish(const float* partial, float* loss, float* stats, int64_t blocks,
                        float normalizer) {
    SHARED(sums, double[2][BLOCK]);
    sum_pieces(partial, blocks, sums);
    if (threadIdx.x == 0) {
        const double divisor = normalizer != 0.0f ? static_cast<double>(normalizer)
                               : sums[1][0] < 1.0 ? 1.0
                                                  : sums[1][0];
        stats[0] = static_cast<float>(divisor);
        loss[0] = static_cast<float>(sums[0][0] / divisor);
    }
}

// prob (outer, C, inner), label (places,), stats (1,) in; dx (outer, C, inner) out.
// count = outer * C * inner
extern "C" __global__ void __launch_bounds__(BLOCK)
    softmax_loss_backward(const float* prob, const float* label, const float* stats, float* dx,
                          int64_t count, int C, int inner, int has_ignore, int ignore,
                          float loss_weight) {
    const int64_t at = global_thread();
    if (at >= count) {
        return;
    }
    const int64_t line = at / inner, outer = line / C;
    const int c = line - outer * C;
    int name;
    if (!counts(__ldg(label + outer * inner + at % inner), has_ignore, ignore, name)) {
        dx[at] = 0.0f;
        return;
    }
    dx[at] = (__ldg(prob + at) - (c == name ? 1.0f : 0.0f)) * (loss_weight / __ldg(stats));
}

// x (outer, C, inner), label (places,) in; partial (blocks, 2) out: the number of labels of a block
// among the top_k, and the number counted
extern "C" __global__ void __launch_bounds__(BLOCK)
    accuracy_pieces(const float* x, const float* label, float* partial, int64_t places, int C,
                    int inner, int has_ignore, int ignore, int top_k) {
    SHARED(right_sums, float[BLOCK / WARP]);
    SHARED(count_sums, float[BLOCK / WARP]);
    const int64_t place = global_thread() / WARP;
    const int lane = threadIdx.x % WARP;
    float not_below = 0.0f;
    int name = 0;
    const bool counted = place < places && counts(__ldg(label + place), has_ignore, ignore, name);
    if (counted) {
        const float* const first = x + place / inner * C * inner + place % inner;
        const float own = __ldg(first + static_cast<int64_t>(name) * inner);
        for (int c = lane; c < C; c += WARP) {
            // The label's score is itself not below it; with NaN every comparison is false.
            not_below += __ldg(first + static_cast<int64_t>(c) * inner) >= own ? 1.0f : 0.0f;
        }
    }
    not_below = warp_sum(not_below);
    const bool right = counted && lane == 0 && not_below <= static_cast<float>(top_k);
    const float rights = block_sum<BLOCK>(right ? 1.0f : 0.0f, right_sums);
    const float all = block_sum<BLOCK>(counted && lane == 0 ? 1.0f : 0.0f, count_sums);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = rights;
        partial[2 * blockIdx.x + 1] = all;
    }
}

// partial (blocks, 2) in; out (1,) out: the share, 0 without labels
extern "C" __global__ void __launch_bounds__(BLOCK)
    accuracy_finish(const float* partial, float* out, int64_t blocks) {
    SHARED(sums, double[2][BLOCK]);
    sum_pieces(partial, blocks, sums);
    if (threadIdx.x == 0) {
        out[0] = sums[1][0] > 0.0 ? static_cast<float>(sums[0][0] / sums[1][0]) : 0.0f;
    }
}
